"""Parses the command line, calls a verb, prints; gives errors their exit codes."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import operator
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

import tyro
from tyro.conf import subcommand

from pocketclip.cli.extras import require
from pocketclip.cli.terminal import drop_output, flush_output, readable_streams, say, sentence, who
from pocketclip.cli.verbs import UsageError, Verb

_HOMES: Mapping[str, str] = {
    "pack": "shards.Pack",
    "score": "filter.Score",
    "filter": "filter.Filter",
    "reinforce": "shards.Reinforce",
    "caption": "caption.Caption",
    "join": "published.Join",
    "publish": "published.Publish",
    "verify": "checks.Verify",
    "inspect": "checks.Inspect",
    "doctor": "doctor.Doctor",
    "train": "train.Train",
    "finetune": "finetune.Finetune",
    "plot": "plot.Plot",
    "evaluate": "evaluate.Evaluate",
    "probe": "probe.Probe",
    "compare": "compare.Compare",
    "bench": "bench.Bench",
    "export": "export.Export",
    "parity": "export.Parity",
    "index": "index.Index",
    "search": "search.Search",
    "list": "listing.List",
    "tag": "listing.Tag",
    "serve": "serve.Serve",
    "describe": "describe.Describe",
    "convert": "convert.Convert",
    "upload": "hub.Upload",
    "demo": "verbs.Demo",
}


class _Verbs(Mapping[str, type]):
    """The verbs by name. The module of one is imported when it is asked for: a search does not wait for the others."""

    def __getitem__(self, name: str) -> type:
        module, _, verb = _HOMES[name].partition(".")
        return getattr(importlib.import_module(f"pocketclip.cli.{module}"), verb)

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)

    def __contains__(self, name: object) -> bool:
        return name in _HOMES


_VERBS = _Verbs()
_STYLE = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
_DESCRIPTION = """Small, fast image-text models from your own data, shipped to devices.

Pictures travel this road: pack, reinforce, train, evaluate, export, index, search, serve.
    pocketclip VERB --help      what a verb does, with examples
    pocketclip demo OUT         the whole road on real pictures, in minutes
    pocketclip --version

Completion in your shell:
    source <(pocketclip --tyro-print-completion bash)     # or zsh

Exit codes: 0 done, 1 could not be done (one sentence says why) or verify found defects, 2 wrong usage,
130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        argv: arguments after the program's name; None for those of this process.
    """
    # libgomp's threads spin for milliseconds by default: on a machine with anything else to do, 30 times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    with readable_streams():
        try:
            return _main(list(sys.argv[1:] if argv is None else argv))
        except BrokenPipeError:  # whoever read the progress has gone
            drop_output()
            return 1
        except KeyboardInterrupt:
            text, code = "interrupted; the same command goes on from what is whole", 130
        except UsageError as error:
            text, code = f"{sentence(error)}; see `pocketclip --help`", 2
        except (ValueError, OSError, ImportError) as error:
            if os.environ.get("POCKETCLIP_TRACEBACK"):
                raise
            text, code = sentence(error), 1
        # The exception is gone by now, and with it its frames: progress bars have drawn their last line.
        print(f"error{who()}: {text}", file=sys.stderr, flush=True)
        return code


def _main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        from pocketclip import __version__

        say(__version__)
        return 0
    try:
        verb = _parse(arguments)
    except SystemExit as left:  # tyro has printed help, or what is wrong
        flush_output()
        return 2 if not arguments else int(left.code or 0)
    except BrokenPipeError:  # `--help | head`
        drop_output()
        return 0
    outcome = verb.run()
    say(json.dumps(outcome.values, indent=1) if verb.json else outcome.text)
    return outcome.code


def _parse(arguments: list[str]) -> Verb:
    """Raises SystemExit when tyro has printed help or an error."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name == "train":
        return _parse_train(rest)
    if name in _VERBS:
        verb = _VERBS[name]
        return cast(
            "Verb",
            tyro.cli(verb, args=rest, prog=f"pocketclip {name}", description=_doc(verb), config=_STYLE),
        )
    if name and not name.startswith("-"):
        close = difflib.get_close_matches(name, _VERBS, n=1)
        raise UsageError(f"there is no verb {name!r}" + (f", did you mean {close[0]}?" if close else ""))
    verbs = [
        Annotated[verb, subcommand(name, description=_doc(verb).splitlines()[0])]  # ty: ignore[invalid-type-form]
        for name, verb in _VERBS.items()
    ]
    tyro.cli(
        functools.reduce(operator.or_, verbs),
        prog="pocketclip",
        description=_DESCRIPTION,
        args=arguments or ["--help"],
        config=_STYLE,
    )
    raise UsageError("name a verb first")


def _parse_train(arguments: list[str]) -> Verb:
    """A recipe's settings are arguments too, so the recipe is looked for first."""
    from pocketclip.cli.train import Train, TrainRecipe

    rest = [text for text in arguments if text not in ("-h", "--help")]
    asked_help = ["--help"] if rest != arguments else []
    prog, doc = "pocketclip train", _doc(Train)
    asked, _ = tyro.cli(Train, args=rest, prog=prog, description=doc, config=_STYLE, return_unknown_args=True)
    if not asked.recipe and asked_help:
        tyro.cli(Train, args=asked_help, prog=prog, description=doc, config=_STYLE)
    if not asked.recipe and not asked.list:
        raise UsageError("train which recipe? `pocketclip train --list` lists them")
    if not asked.recipe:
        require("train", ("train",))
        return asked
    require("train", ("train",))
    from pocketclip.recipes.registry import recipe
    from pocketclip.recipes.run import RecipeRun

    try:
        config = recipe(asked.recipe)
    except ValueError as error:
        raise UsageError(str(error)) from None
    rest.remove(asked.recipe)
    missing = cast("Path", tyro.MISSING)
    run = tyro.cli(
        RecipeRun,
        args=[*rest, *asked_help],
        prog=f"{prog} {asked.recipe}",
        description=f"Train the recipe {asked.recipe}.",
        default=RecipeRun(data=missing, out=missing, config=config),
        config=_STYLE[1:],
    )
    return TrainRecipe(run)


def _doc(verb: type) -> str:
    """The whole docstring, examples and line breaks included, as a verb's help."""
    return inspect.cleandoc(verb.__doc__ or "")
