"""Run by the public package's Python: prints, as JSON, what its engines take, and Parsl's parts that they name.

By kind (engines, providers, launchers, addresses) and name, an example value for each option: its default where YAML
can say that, otherwise one of the type that its annotation names; null for what YAML cannot say. `fates` are the
errors that providers end with, made with all these, or null.
"""

import concurrent.futures
import inspect
import json
import re

import globus_compute_endpoint.engines as engines
import parsl.addresses
import parsl.launchers
import parsl.providers
from globus_compute_endpoint.engines.base import GlobusComputeEngineBase

EXAMPLES = {"Dict": {"a": "b"}, "bool": True, "int": 2, "float": 1.5, "str": "text", "DeserializerAllowlist": []}
BEHIND = {
    "ThreadPoolEngine": [concurrent.futures.ThreadPoolExecutor],
    "ProcessPoolEngine": [concurrent.futures.ProcessPoolExecutor],
    "GlobusComputeEngine": [engines.GlobusComputeEngine, engines.GlobusComputeEngine._ExecutorClass],
    "GlobusMPIEngine": [engines.GlobusComputeEngine, engines.GlobusMPIEngine._ExecutorClass],
}


def example(parameter):
    default = parameter.default
    if default is not None and isinstance(default, (bool, int, float, str, list, tuple, dict)):
        return list(default) if isinstance(default, tuple) else default
    annotation = str(getattr(parameter.annotation, "__name__", parameter.annotation))
    if default is parameter.empty and annotation == "_empty":
        return "text"  # providers of clouds: Parsl does not say
    if parameter.name == "provider":
        return {"type": "LocalProvider", "launcher": {"type": "SimpleLauncher"}}
    words = re.findall(r"\w+", f"{annotation} {parameter.annotation}")
    return next((value for name, value in EXAMPLES.items() if name in words), None)


def options(function):
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return {each.name: example(each) for each in parameters if each.kind in kinds}


def classes(module):
    return {name: options(getattr(module, name)) for name in module.__all__}


def fate(provider):
    given = {name: value for name, value in options(provider).items() if value is not None}
    try:
        provider(**given)
    except Exception as e:
        return str(e)
    return None


known = [each for each in vars(engines).values() if inspect.isclass(each)]
assert {each.__name__ for each in known if issubclass(each, GlobusComputeEngineBase)} == set(BEHIND)
every = {}
for name, behind in BEHIND.items():
    every[name] = {}
    for each in (GlobusComputeEngineBase, getattr(engines, name), *behind):
        for option, value in options(each).items():
            if every[name].get(option) is None:
                every[name][option] = value
    del every[name]["endpoint_id"]  # not the configuration's
print(
    json.dumps(
        {
            "engines": every,
            "providers": classes(parsl.providers),
            "fates": {name: fate(getattr(parsl.providers, name)) for name in parsl.providers.__all__},
            "launchers": classes(parsl.launchers),
            "addresses": {
                name: options(each)
                for name, each in vars(parsl.addresses).items()
                if inspect.isfunction(each) and inspect.signature(each).return_annotation is str and "address" in name
            },
        }
    )
)
