"""Alert rules and dashboard of the package: promtool reads each expression, and each names metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lab.prometheus import PROMTOOL
from mep.worker import metrics
from mep.worker.durations import STEPS, Durations
from mep.worker.events import Events
from tests.conftest import need

PROJECT = Path(__file__).parents[1]
RULES = PROJECT / "packaging/prometheus/mep.rules.yml"
DASHBOARD = PROJECT / "packaging/grafana/mep.json"
WORDS = {
    "stage": metrics.STAGES,
    "part": metrics.TROUBLES,
    "by": metrics.HELD,
    "step": STEPS,
    "state": metrics.STATES,
    "job": ("mep",),
    "instance": ("$instance",),
}
"""The values of labels that expressions may ask for."""
MANAGER = {
    "pid": 1,
    "began": 1,
    "lost_audit_lines": 0,
    "status": {},
    **dict.fromkeys(("version", "configuration", "endpoint"), ""),
}
NOTHING = b'{"user_endpoints": [], "left_out": 0}', b'{"held_back": []}'


@pytest.fixture(scope="module")
def promtool() -> str:
    need(Path(PROMTOOL).exists(), "needs promtool (lab/setup prometheus)")
    return PROMTOOL


def alerts() -> dict[str, str]:
    return {
        rule["alert"]: rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    }


def panels() -> dict[str, list[str]]:
    shown = json.loads(DASHBOARD.read_text())["panels"]
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in shown}


EXPRESSIONS = [*alerts().values(), *(each for shown in panels().values() for each in shown)]


def test_promtool_takes_the_rules(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_promtool_takes_what_the_dashboard_asks(promtool: str, tmp_path: Path) -> None:
    expressions = [each for shown in panels().values() for each in shown]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"{len(expressions)} rules found" in done.stdout, done.stderr


def test_promtool_takes_what_a_manager_says(promtool: str) -> None:
    said = metrics.of_events(Events(), Durations()) + metrics.of_manager(MANAGER, *NOTHING)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=said, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(expression: str) -> None:
    """Else it would be empty for ever, and look as if all were well."""
    said = metrics.of_events(Events(), Durations()) + metrics.of_manager(MANAGER, *NOTHING)
    known = set(re.findall(r"^# TYPE (\S+)", said, re.MULTILINE)) | {"mep_start_step_seconds_bucket"}
    asked = set(re.findall(r"\bmep_\w+", expression))
    assert asked <= known and (asked or expression.startswith("up"))
    for label, text in re.findall(r'(\w+)=~?"([^"]*)"', expression):
        assert set(text.split("|")) <= set(WORDS[label]), label
    for label in re.findall(r"\((\w+)\) \(", expression):
        assert label in {*WORDS, "outcome", "engine", "process", "le"}


RAISED = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="mep", instance="a"}}', values: '0x10'}}
      - {{series: 'mep_connected{{instance="b"}}', values: '0x10'}}
      - {{series: 'mep_connected{{instance="c"}}', values: '1x10'}}
      - {{series: 'mep_trouble{{instance="c", part="records"}}', values: '0 1'}}
      - {{series: 'mep_audit_lines_lost_total{{instance="b"}}', values: '0 0 5 5 5'}}
      - {{series: 'mep_refusals_total{{instance="b", stage="launch"}}', values: '0+1x10'}}
      - {{series: 'mep_refusals_total{{instance="c", stage="identity"}}', values: '0+9x10'}}
    promql_expr_test:
      - {{expr: 'count(ALERTS{{alertstate="firing", alertname="MepUnreachable", instance="a"}})', eval_time: 5m, exp_samples: [{{labels: '{{}}', value: 1}}]}}
      - {{expr: 'count by (instance) (ALERTS{{alertstate="firing", alertname="MepNotConnected"}})', eval_time: 6m, exp_samples: [{{labels: '{{instance="b"}}', value: 1}}]}}
      - {{expr: 'count by (instance) (ALERTS{{alertstate="firing", alertname="MepRecordsNotWritten"}})', eval_time: 4m, exp_samples: [{{labels: '{{instance="b"}}', value: 1}}, {{labels: '{{instance="c"}}', value: 1}}]}}
      - {{expr: 'count by (instance) (ALERTS{{alertstate="firing", alertname="MepStartsFail"}})', eval_time: 10m, exp_samples: [{{labels: '{{instance="b"}}', value: 1}}]}}
"""  # noqa: E501


def test_alerts_fire_when_they_should_and_only_then(promtool: str, tmp_path: Path) -> None:
    file = tmp_path / "raised.yml"
    file.write_text(RAISED.format(rules=RULES))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_document_says_what_each_alert_means() -> None:
    document = (PROJECT / "docs" / "operation.md").read_text()
    assert all(f"`{name}`" in document for name in alerts())
