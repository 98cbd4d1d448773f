"""What cannot be sent, as a task or as its result."""

from tests.compare.scripts.script import script


@script(fails="globus_compute_sdk.errors.error_types.SerializationError: Serialization failed: All strategies failed.")
def result_is_a_generator(site):
    return site.call(lambda: (n for n in range(3)))


@script(fails="globus_compute_sdk.errors.error_types.SerializationError: Serialization failed: All strategies failed.")
def result_is_a_coroutine(site):
    async def f():
        return 1

    return site.call(f)


@script(fails="OSError: cannot be loaded")
def argument_cannot_be_loaded(site):
    class Bomb:
        def __reduce__(self):
            def explode():
                raise OSError("cannot be loaded")

            return explode, ()

    return site.call(lambda x: x, Bomb())


@script(raises="builtins.Exception")
def result_cannot_be_loaded(site):
    def f():
        class Bomb:
            def __reduce__(self):
                def explode():
                    raise OSError("cannot be loaded")

                return explode, ()

        return Bomb()

    return site.call(f)
