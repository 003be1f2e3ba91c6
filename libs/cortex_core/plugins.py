"""A user's own object, named in the configuration as `package.module:Object`."""

from importlib import import_module

from cortex_core.loading import ConfigError


def load_object(name: str, *, where: str, methods: tuple[str, ...]) -> object:
    """Return the object that `name` stands for; a class is made into an object without arguments.

    `where` is the key that names it. Raises ConfigError when it is missing, cannot be imported, or
    lacks one of `methods`.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"{where}: {name!r} must be 'package.module:Object'")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever a user's module does when it is imported
        raise ConfigError(
            f"{where}: {module_name!r} cannot be imported: {type(error).__name__}: {error}. "
            f"Is its folder on PYTHONPATH, or the package installed?"
        ) from error
    try:
        found = getattr(module, attribute)
    except AttributeError:
        raise ConfigError(f"{where}: {module_name!r} has no {attribute!r}") from None
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:  # as above
            raise ConfigError(
                f"{where}: {name!r} cannot be made without arguments: {error}"
            ) from error
    if missing := [method for method in methods if not callable(getattr(found, method, None))]:
        raise ConfigError(f"{where}: {name!r} has no method {missing[0]!r}")
    return found
