"""Ways to serialize functions, arguments and results."""

import re

from globus_compute_sdk import Client, serialize
from globus_compute_sdk.serialize import ComputeSerializer

from tests.compare.scripts.outcome import failure_of
from tests.compare.scripts.script import STRATEGY, TIMEOUT, script


def with_code_strategy(strategy):
    def run(site):
        client = Client(code_serialization_strategy=strategy())

        def f(a, b=2):
            import math

            return [math.floor(a), b]

        with site.executor(client) as executor:
            return executor.submit(f, 1.5).result(TIMEOUT)

    return run


# The two that send the text of a function as it stands need one that is not indented.
def top_level(a, b=2):
    import math

    return [math.floor(a), b]


def with_source_strategy(strategy):
    def run(site):
        with site.executor(Client(code_serialization_strategy=strategy())) as executor:
            return executor.submit(top_level, 1.5).result(TIMEOUT)

    return run


for each in ("DillCode", "DillCodeSource", "PureSourceDill", "AllCodeStrategies", "CombinedCode"):
    script(returns=[1, 2], name=f"code_as_{each}")(with_code_strategy(getattr(serialize, each)))
for each in ("DillCodeTextInspect", "PureSourceTextInspect"):
    script(returns=[1, 2], name=f"code_as_{each}")(with_source_strategy(getattr(serialize, each)))


def with_data_strategy(strategy):
    def f(*args, **kwargs):
        return [*args, kwargs]

    def run(site):
        with site.executor(Client(data_serialization_strategy=strategy())) as executor:
            return executor.submit(f, 1, "two", [3.0, None], k=True).result(TIMEOUT)

    return run


for each in ("DillDataBase64", "JSONData", "AllDataStrategies"):
    script(returns=[1, "two", [3.0, None], {"k": True}], name=f"data_as_{each}")(
        with_data_strategy(getattr(serialize, each))
    )


@script(returns={"1": [2, 3]})
def result_as_json(site):
    with site.executor(result_serializers=[STRATEGY + "JSONData"]) as executor:
        return executor.submit(lambda: {1: (2, 3)}).result(TIMEOUT)


@script(returns={1})
def result_as_json_or_else(site):
    with site.executor(result_serializers=[STRATEGY + "JSONData", STRATEGY + "DillDataBase64"]) as executor:
        return executor.submit(lambda: {1}).result(TIMEOUT)


@script(returns=[1])
def result_as_all(site):
    with site.executor(result_serializers=[serialize.AllDataStrategies()]) as executor:
        return executor.submit(lambda: [1]).result(TIMEOUT)


@script(fails="globus_compute_sdk.errors.error_types.SerializationError: Serialization failed: All strategies failed.")
def result_not_as_json(site):
    with site.executor(result_serializers=[STRATEGY + "JSONData"]) as executor:
        return executor.submit(lambda: {1}).result(TIMEOUT)


@script(returns="TaskExecutionFailed: SerializationError")
def result_by_an_unknown_strategy(site):
    function = site.client.register_function(lambda: 1)
    (task,) = site.run_batch({function: [()]}, result_serializers=["no.such.Strategy"])["tasks"][function]
    site.ended(task)
    return re.sub(r": \S*(SerializationError): .*", r": \1", failure_of(lambda: site.client.get_result(task)))


@script(returns=[1, 2])
def arguments_by_a_serializer(site):
    client = Client()
    with site.executor(client, serializer=ComputeSerializer(strategy_data=serialize.JSONData())) as executor:
        return executor.submit(lambda x: x, (1, 2)).result(TIMEOUT)
