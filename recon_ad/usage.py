"""What the commands say of themselves: the list of them, and the --help of each.

All of it comes from their docstrings and flags. A docstring begins with a sentence, and how the
command is typed stands in it as an indented block.
"""

import ast
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import flags

# In the order in which one comes to need them.
COMMANDS = (
    "check", "train", "evaluate", "predict", "calibrate", "export", "compare", "sweep", "classify",
    "inspect", "monitor", "weights", "reproduce",
)  # fmt: skip
HELP = ("--help", "-help", "-h", "-?", "--helpshort", "-helpshort")
REQUIRED = "must have a value other than None"  # what absl says of a flag that is missing
WIDTH = 100  # columns at most


def asks_for_help(argv: Sequence[str]) -> bool:
    """Tells whether a command line has one of `HELP` among its flags."""
    given = list(argv[1:])
    return any(word in HELP for word in given[: given.index("--") if "--" in given else None])


def sentence_of(doc: str) -> str:
    """Returns a docstring's first line."""
    return doc.strip().partition("\n")[0]


def listing() -> str:
    """Returns a line for each command, from its docstring, which is read without importing it."""
    root, width = Path(__file__).parent, max(map(len, COMMANDS))
    lines = ["python -m recon_ad.COMMAND runs one of these; each has --help.", ""]
    for name in COMMANDS:
        doc = ast.get_docstring(ast.parse((root / f"{name}.py").read_text())) or ""
        lines.append(f"  {name:{width}}  {sentence_of(doc)}")
    return "\n".join(lines)


def help_of(doc: str, *, command: str) -> str:
    """Returns what --help prints: what a command does, how it is typed, a line for each flag.

    Args:
      doc: of the command's module, whose flags are defined.
      command: how it is called, as "python -m recon_ad.train".
    """
    blocks = [block.rstrip() for block in doc.split("\n\n") if block.startswith("    ")]
    # A flag with a dot is a field of the config that the command line sets.
    own = flags.FLAGS.get_key_flags_for_module("__main__")
    lines = "\n".join(_lines([flag for flag in own if "." not in flag.name]))
    parts = [sentence_of(doc), *blocks, lines, f"More: {command} --helpfull"]
    return "\n\n".join(filter(None, parts))


def is_required(flag: flags.Flag) -> bool:
    """Tells whether a command cannot do without the flag."""
    return any(REQUIRED in str(check.message) for check in flag.validators)


def _lines(own: Sequence[flags.Flag]) -> list[str]:
    """A line for each flag, those that are required first."""
    rows = [
        (f"--{flag.name}", _text(flag)) for flag in sorted(own, key=lambda f: not is_required(f))
    ]
    if any(name == "--config" for name, _ in rows):
        rows.append(("--config.FIELD", "A field of the config, as in --config.seed=1."))
    indent = 4 + max((len(name) for name, _ in rows), default=0)
    columns = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    return [
        textwrap.fill(
            text, columns, initial_indent=f"  {name}".ljust(indent), subsequent_indent=" " * indent
        )
        for name, text in rows
    ]


def _text(flag: flags.Flag) -> str:
    """What the flag is, and that it is required or what stands where it is not given."""
    # What absl adds of repeating a flag is left out, and that of several values one is empty.
    help_ = flag.help.partition(";\n")[0].replace("<|", "<")
    if is_required(flag):
        return f"{help_} Required."
    if flag.default in (None, "", False, []) or flag.name == "config":
        return help_
    default = f"{flag.default:g}" if isinstance(flag.default, float) else flag.default_as_str
    return f"{help_} Default: {default.strip(chr(39))}."
