"""The configs that come with the package, by name.

    cfg = get_config("LibraRCNN/libra_faster_rcnn_R_50_FPN_1x")                # a CfgNode
    cfg = get_config("quick/faster_rcnn_R_18_FPN.py", add=["RGA_PRM/rga"])     # a LazyConfig

and ``d2_balanced configs``, which lists them. Every command takes the same names as ``--config-file``.
"""

from __future__ import annotations

import argparse
import re
from typing import Dict, List, Optional, Sequence

from .utils.command import called, command
from .utils.errors import ConfigError, did_you_mean
from .utils.shipped import shipped_configs, shipped_file, shipped_fragments

__all__ = ["describe", "get_config", "get_config_file", "list_configs", "list_fragments", "main"]

_NAME = "python -m d2_balanced.zoo"
_EPILOG = """
Examples:
  d2_balanced configs                 everything, one line each
  d2_balanced configs retinanet       what has this word in its name or description
  d2_balanced configs show quick/faster_rcnn_R_18_FPN.py --add RGA_PRM/rga train.max_iter=500

Without an ending a name means the yaml file; its twin, a LazyConfig, ends in .py.
"""


def list_configs() -> List[str]:
    """The names of all configs; each is there as ``.yaml``, and as ``.py``."""
    return list(shipped_configs())


def list_fragments() -> List[str]:
    """The names of what can be added to a config."""
    return list(shipped_fragments())


def get_config_file(name: str) -> str:
    """The path of a config or fragment; without an ending its yaml file. ``ConfigError`` if there is none."""
    return shipped_file(name)


def get_config(name: str, overrides: Sequence[str] = (), add: Sequence[str] = ()):
    """The complete, checked config: a ``CfgNode``, or of a name that ends in ``.py`` a ``DictConfig``.

    Args:
        overrides: ``["KEY.PATH", "value", ...]`` or ``["key.path=value", ...]``, as at the end of a command.
        add: names or paths of fragments, added in their order before the overrides.

    Raises ``ConfigError`` for a name, key or value that there is not.
    """
    from .engine.open import open_experiment

    return open_experiment(name, overrides, fragments=add).cfg


def describe(path: str) -> str:
    """The first sentence of the comment at the top of a yaml file, or what the file is made of."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    comment = re.match(r"(?:#.*\n)+", text)
    if comment:
        words = " ".join(line.lstrip("# ").strip() for line in comment.group().splitlines())
        return re.split(r"(?<=[^.]\.) (?=[A-Z])", words)[0].rstrip(".")
    bases = re.findall(r"([\w-]+)\.ya?ml", text)
    return " + ".join(bases)


@command(_NAME)
def main(argv: Optional[Sequence[str]] = None) -> None:
    """``d2_balanced configs``: prints the list, or one config in full."""
    args, more = _parser().parse_known_args(argv)
    if args.words[:1] == ["show"]:
        if len(args.words) < 2:
            raise ConfigError("configs show: which one? `d2_balanced configs` lists the names.")
        _show(args.words[1], args.words[2:] + more, args.add)
    elif len(args.words) > 1 or more or args.add:
        raise ConfigError(f"configs takes one WORD, or show NAME; got {' '.join([*args.words, *more])!r}.")
    else:
        _print_list("".join(args.words))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called(_NAME), usage="%(prog)s [WORD] | show NAME [--add FRAGMENT] [overrides]", epilog=_EPILOG,
        description="The configs and fragments that come with the package.", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a name or description; or show and a name")
    parser.add_argument("--add", action="append", default=[], metavar="FRAGMENT", help="with show: what is added to it")
    return parser


def _show(name: str, overrides: Sequence[str], add: Sequence[str]) -> None:
    from .engine.open import open_experiment

    print(open_experiment(name, overrides, fragments=add).config_text().rstrip("\n"))


def _print_list(word: str) -> None:
    parts = {"configs (--config-file)": shipped_configs(), "fragments (--add)": shipped_fragments()}
    found = {title: _lines(files, word.lower()) for title, files in parts.items()}
    if not any(found.values()):
        known = [name for files in parts.values() for name in files]
        raise ConfigError(f"No config or fragment has {word!r} in its name or description.{did_you_mean(word, known)}")
    print("\n\n".join("\n".join([f"{title}:", *lines]) for title, lines in found.items() if lines))


def _lines(files: Dict[str, str], word: str) -> List[str]:
    about = {name: describe(path) for name, path in files.items()}
    shown = {name: text for name, text in about.items() if word in f"{name} {text}".lower()}
    width = max(map(len, shown), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in shown.items()]


if __name__ == "__main__":
    main()
