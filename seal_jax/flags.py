"""Reading --config and its overrides from a command line, for every entry point: each mistake is one sentence.

ml_collections turns --config=FILE into a ConfigDict and --config.GROUP.FIELD=VALUE into a change of it. Here unknown
fields are refused first, and whatever else goes wrong becomes a UserError.
"""

import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from seal_jax import config as config_lib
from seal_jax.errors import UserError


def read_config(argv: Sequence[str], flag_values: flags.FlagValues, config_flag: flags.FlagHolder) -> dict:
    """The config as nested dicts, after all flags of `argv` were parsed into `flag_values`.

    config_flag: what config_flags.DEFINE_config_file returned. Raises UserError for whatever is wrong, and ends the
    program after --help.
    """
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(f"{sys.modules['__main__'].__doc__}\nFlags:\n{flag_values.main_module_help()}")
        raise SystemExit(0)
    name = config_flag.name
    file = _value_of(argv, name)
    try:
        if file is None:
            flag_values([argument for argument in argv if not _is_of(argument, name)])  # may know a worse mistake
            raise UserError(f"give --{name}=FILE, such as configs/quickstart.py")
        _check_overrides(argv, name, _plain(flag_values[name].parser.parse(file)))
        rest = flag_values(list(argv))
        values = _plain(config_flag.value)
    except (flags.Error, UserError) as error:
        raise UserError(_last_line(error)) from error
    except Exception as error:  # a config file is a program, and may fail in any way
        raise UserError(_broken_file(file, error)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; a flag has the form --NAME=VALUE, and --help lists them")
    return values


def _is_of(argument: str, name: str) -> bool:
    """Whether an argument is --name, with a value or without, or an override of one of its fields."""
    return re.match(rf"--?(?:no)?{re.escape(name)}(?:[.=]|$)", argument) is not None


def _value_of(argv: Sequence[str], name: str) -> str | None:
    """The value of --name=VALUE or --name VALUE; the last one counts."""
    found = None
    for index, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag in (f"-{name}", f"--{name}"):
            found = value if equals else next(iter(argv[index + 1 :]), None)
    return found


def _plain(config: Any) -> dict:
    """A ConfigDict as nested dicts. Raises UserError where a config file returned something else."""
    if not isinstance(config, ConfigDict):
        getattr(config, "to_dict", None)  # raises the reason where the file could not be read
        raise UserError("get_config of the config file must return a ConfigDict")
    return config.to_dict()


def _check_overrides(argv: Sequence[str], name: str, values: Mapping[str, Any]) -> None:
    """Raises UserError for --config.GROUP.FIELD where the config `values` has no such field."""
    for argument in argv[1:]:
        found = re.match(rf"--?(?:no)?{re.escape(name)}\.([\w.]+)", argument)
        if found:
            _check_field(found[1], values)


def _check_field(field: str, values: Mapping[str, Any]) -> None:
    """Raises UserError unless the dotted name `field` is that of a value in `values`."""
    domain, place, node = values.get("domain", config_lib.DOMAINS[0]), "config", values
    for part in field.split("."):
        if not isinstance(node, Mapping) or part not in node:
            others = [other for other in config_lib.DOMAINS if other != domain and _has(other, field)]
            if others and config_lib.unread(domain, field):
                raise UserError(
                    f"config.{field} is read by the domain {others[0]!r} alone, and this config is for {domain!r}; "
                    "leave the flag out"
                )
            known = f"; there are {', '.join(sorted(node))}" if isinstance(node, Mapping) else ""
            raise UserError(f"{place} has no field {part!r}{known}")
        place, node = f"{place}.{part}", node[part]
    if isinstance(node, Mapping):
        raise UserError(f"{place} is a group of fields; set one of them: {', '.join(sorted(node))}")


def _has(domain: str, field: str) -> bool:
    node: Any = config_lib.defaults(domain)
    for part in field.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _broken_file(file: str, error: Exception) -> str:
    path = file.split(":")[0]
    if isinstance(error, OSError) and not os.path.isfile(path):
        return f"the config file {path!r} cannot be read; name one, such as configs/quickstart.py"
    cause = error.__cause__ if isinstance(error, OSError) and error.__cause__ else error
    place = traceback.extract_tb(cause.__traceback__)[-1]
    where = f"{type(cause).__name__}: {_last_line(cause)}; {place.filename}, line {place.lineno}"
    return f"the config file does not work ({where})"


def _last_line(error: Exception) -> str:
    return str(error).strip().split("\n")[-1].strip()
