"""The face of every command: compose, check, and only then run.

A wrong group, key, type or range ends in one message and leaves nothing behind, since the whole
configuration is checked before Hydra makes folders and before torch or mlflow are imported.
"""

import copy
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

from hydra import compose, initialize_config_module
from hydra import main as hydra_main
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from atheria import collecting, endings, foreign, registry
from atheria.config import UserError, unknown_key, validate

Schema = TypeVar("Schema")


def _groups(choices: DictConfig) -> str:
    """The groups that a command chooses from, with their options: for its help page."""
    loader = GlobalHydra.instance().config_loader()
    names = sorted(str(name) for name in choices if not str(name).startswith("hydra/"))
    return "\n".join(f"{name}: {', '.join(loader.get_group_options(name))}" for name in names)


OmegaConf.register_new_resolver("atheria.groups", _groups, replace=True)

USAGE_ERROR = 2
INTERRUPTED = 130


def main(command: str, schema: type[Any], job: str, sweep: str | None = None, speaks: bool = True) -> None:
    """Runs a command as a Hydra application.

    Args:
        command: Name of its primary YAML file in ``conf/``.
        schema: Dataclass of its configuration.
        job: Module that does the work, by ``check(config)`` and ``run(config)``; imported late.
        sweep: Module that does many of them, by ``run(overrides)``; None for Hydra's own way.
        speaks: Whether messages are printed; of the processes that do one job together, the first does.
    """

    def task(config: DictConfig) -> None:
        try:
            import_module(job).run(to_settings(schema, config))
        except (UserError, OSError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the sweep reports it
            sys.exit(_message(command, error) if speaks else 1)

    try:
        endings.interrupt_on_signals()
        arguments = _check_command_line(command, schema, job, speaks, is_swept=sweep is not None)
        collecting.begin()
        if sweep is not None and arguments.multirun and not _only_shows(arguments):
            _sweep(command, sweep, arguments.overrides)
            return
        # Called without the rest of the command line, which hydra_main reads from sys.argv itself.
        hydra_main(version_base="1.3", config_path="pkg://atheria.conf", config_name=command)(task)()
    except KeyboardInterrupt:
        if speaks:
            print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _sweep(command: str, sweep: str, overrides: list[str]) -> None:
    try:
        import_module(sweep).run(overrides)
    except (UserError, OSError) as error:
        sys.exit(_message(command, error))


def _only_shows(arguments: Namespace) -> bool:
    return bool(
        arguments.help
        or arguments.hydra_help
        or arguments.info
        or arguments.cfg
        or arguments.shell_completion
    )


def _check_command_line(command: str, schema: type[Any], job: str, speaks: bool, is_swept: bool) -> Namespace:
    """The command line; ends the program with one message where the job could not start.

    Of a sweep, whose jobs run elsewhere, only the first is checked whole, and that on the CPU.
    """
    arguments = get_args_parser().parse_args()
    only_shown = _only_shows(arguments)
    if arguments.shell_completion:
        return arguments
    try:
        for number, overrides in enumerate(_jobs(arguments.overrides, arguments.multirun)):
            if only_shown:
                compose_config(command, overrides)
            elif is_swept and arguments.multirun:
                to_settings(schema, compose_config(command, overrides))
                if number == 0:
                    configure(command, schema, job, [*overrides, "device=cpu"])
            else:
                configure(command, schema, job, overrides)
        foreign.offer(arguments.overrides)  # last: of a sweep, every law that it names must stay selectable
    except UserError as error:
        if speaks:
            print(_message(command, error), file=sys.stderr)
        sys.exit(USAGE_ERROR)
    return arguments


def configure(command: str, schema: type[Any], job: str, overrides: Sequence[str]) -> Callable[[], Any]:
    """The work of a command under some overrides, checked and ready to run.

    Raises:
        UserError: The configuration is not valid.
    """
    if isinstance(overrides, str):
        raise UserError(f'give a list of overrides, as ["{overrides}"]')
    settings = to_settings(schema, compose_config(command, overrides))
    module = import_module(job)
    module.check(settings)
    return partial(module.run, settings)


def compose_config(command: str, overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    """The configuration of a command under some overrides, as Hydra composes it.

    Args:
        command: Name of its primary YAML file.
        overrides: The settings.
        with_hydra: Whether Hydra's own configuration is part of it.

    Raises:
        UserError: An override names no group, option or key, or cannot be parsed.
    """
    foreign.offer(overrides)
    outer = copy.copy(GlobalHydra.instance().hydra)  # of a notebook, or of an application that calls us
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(version_base="1.3", config_module="atheria.conf"):
            return compose(command, overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(command, overrides, error)) from None
    finally:
        GlobalHydra.instance().hydra = outer


def to_settings(schema: type[Schema], config: DictConfig) -> Schema:
    """A composed configuration, checked against its schema.

    Raises:
        UserError: See `atheria.config.validate`; or an interpolation leads nowhere.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"`{error.full_key}` is missing; give it: {error.full_key}=...") from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    assert isinstance(values, dict)
    return validate(schema, {str(key): value for key, value in values.items()})


def _jobs(overrides: list[str], multirun: bool) -> list[list[str]]:
    """Override lists that together hold every value that the command line gives."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        hint = "; quote what holds spaces, = or brackets: key=\"'a b'\""
        raise UserError(_explain("", overrides, error) + hint) from None
    for override in parsed:
        if override.is_sweep_override() and not multirun:
            raise UserError(
                f"'{override.input_line}' holds several values: add -m to sweep over them, or write "
                f"a list as {override.key_or_group}=[...]"
            )
    choices = [_values(override) for override in parsed]
    first = [values[0] for values in choices]
    others = [
        [*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]
    ]
    return [first, *others]


def _values(override: Override) -> list[str]:
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if isinstance(value, Glob):
        raise UserError(f"`{key}`: glob is not understood here; list the values")
    if not override.is_discrete_sweep():
        return [str(override.input_line)]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _explain(command: str, overrides: Sequence[str], error: Exception) -> str:
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'\.(?! No match)", text):
        key = match[1]
        if key.startswith("hydra."):
            return f"`{key}` is not a key of Hydra's; --cfg hydra prints what is"
        parent = key.rpartition(".")[0]
        others = [line for line in overrides if _key(line) != key]
        node = OmegaConf.select(compose_config(command, others), parent) if parent else None
        if node is None:
            node = compose_config(command, others)
        message = unknown_key(key, [str(name) for name in node] if isinstance(node, DictConfig) else [])
        if parent == "trainer.loss":
            message += (
                f"; add one of {', '.join(registry.names('atheria.losses'))} with +{key}=..., drop with ~"
            )
        return message
    if match := re.search(r"Could not override '([^']+)'\. No match", text):
        return unknown_key(match[1], [str(key) for key in compose_config(command, [])])
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"`{match[1]}` has no option '{match[2]}'; allowed: {', '.join(options)}"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        text = f"{text}: {error.__cause__}"
    return ": ".join(text.partition("\nSee https")[0].strip().splitlines())


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _message(command: str, error: Exception) -> str:
    return f"atheria.{command}: {error}"
