# Everything a developer runs. Each target does its own set-up (lab/setup), works from any folder, and runs as root:
# the product becomes other users, and so do its demo and its tests.
#
#   make demo          the main job, end to end; KEEP=1 leaves it running
#   make test          lint and all tests, in WORKERS processes (one: WORKERS=0)
#   make test-unit     those that need neither root nor a broker, Parsl or a site: half a minute
#   make test-root     those that need root, and no broker, Parsl or site: a minute or two
#   make lint          mypy --strict and ruff    make format      rewrites the layout of the code
#   make bench-quick   ours beside the public package; bench-mapping: our identity mapping beside the official library;
#                      bench-hub: the hub under the load of 300 clients; bench-listing: its list of endpoints
#   make rpm           builds the RPM into dist/
#   make lock          renews requirements/*.txt and requirements/clients/*.txt
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.PHONY: demo demo-stop test test-unit test-root lint format bench-quick bench-mapping bench-hub bench-listing rpm lock clean-environments

here := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
dev := $(or $(MEP_DEV),/opt/mep-dev)
# More than a machine has processors: tests wait most of the time.
WORKERS ?= 4
parallel := -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=20
setup := env="$$('$(here)lab/setup')"; cd '$(here)'
setup_peer := env="$$('$(here)lab/setup' peer box slurm mpi other pythons browser prometheus clients)"; export MEP_PEER='$(dev)/peer' MEP_OTHER='$(dev)/other' MEP_CLIENTS='$(dev)/clients'; cd '$(here)'

demo:
	@$(setup)
	"$$env/bin/python" -m demo $(if $(KEEP),--keep)

demo-stop:
	@$(setup)
	"$$env/bin/python" -m demo --stop

test: lint
	@$(setup_peer)
	"$$env/bin/python" -m pytest -p no:cacheprovider $(parallel) $(ARGS)

test-unit:
	@$(setup)
	"$$env/bin/python" -m pytest -p no:cacheprovider $(parallel) -m 'not system and not root' $(ARGS)

test-root:
	@$(setup)
	"$$env/bin/python" -m pytest -p no:cacheprovider $(parallel) -m 'root and not system' $(ARGS)

lint:
	@$(setup)
	"$$env/bin/ruff" check .
	"$$env/bin/ruff" format --check .
	"$$env/bin/mypy"

format:
	@$(setup)
	"$$env/bin/ruff" check --fix . ; "$$env/bin/ruff" format .

bench-quick:
	@$(setup_peer)
	"$$env/bin/python" -m benchmarks.quick $(ARGS)

bench-mapping:
	@$(setup)
	"$$env/bin/python" -m benchmarks.mapping $(ARGS)

bench-listing:
	@$(setup)
	"$$env/bin/python" -m benchmarks.listing $(ARGS)

bench-hub:
	@$(setup)
	"$$env/bin/python" -m benchmarks.hub $(ARGS)

rpm:
	@'$(here)packaging/rpm/build' '$(here)dist'

lock:
	@$(setup)
	tools="$$(mktemp -d)"; trap 'rm -rf "$$tools"' EXIT
	"$$env/bin/python" -m venv "$$tools"; "$$tools/bin/pip" install -q pip-tools
	compile=("$$tools/bin/pip-compile" -q --upgrade --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe)
	"$${compile[@]}" --extra hub --extra dev -o requirements/dev.txt pyproject.toml
	"$${compile[@]}" --extra hub -o requirements/runtime.txt pyproject.toml
	for name in peer clients/groundhog clients/psik clients/academy; do
	    "$${compile[@]}" -o "requirements/$$name.txt" "requirements/$$name.in"
	done

clean-environments:
	rm -rf '$(dev)'
