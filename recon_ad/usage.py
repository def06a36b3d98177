"""Help texts: the list of commands, and the --help of each command.

Both are built from the commands' docstrings and flags. A docstring begins with a one-line sentence
and shows the command lines as indented blocks.
"""

import ast
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import flags

# In the order in which a user needs them.
COMMANDS = (
    "check", "train", "evaluate", "predict", "calibrate", "certify", "export", "compare", "sweep",
    "classify", "inspect", "monitor", "weights", "reproduce",
)  # fmt: skip
HELP = ("--help", "-help", "-h", "-?", "--helpshort", "-helpshort")
REQUIRED = "must have a value other than None"  # absl's message for a missing flag
WIDTH = 100  # columns at most


def asks_for_help(argv: Sequence[str]) -> bool:
    """Return whether a command line has one of `HELP` among its flags."""
    given = list(argv[1:])
    return any(word in HELP for word in given[: given.index("--") if "--" in given else None])


def sentence_of(doc: str) -> str:
    """Return a docstring's first line."""
    return doc.strip().partition("\n")[0]


def listing() -> str:
    """Return one line per command from its docstring, which is read without importing it."""
    root, width = Path(__file__).parent, max(map(len, COMMANDS))
    lines = ["Usage: python -m recon_ad.COMMAND [--help]", ""]
    for name in COMMANDS:
        doc = ast.get_docstring(ast.parse((root / f"{name}.py").read_text())) or ""
        lines.append(f"  {name:{width}}  {sentence_of(doc)}")
    return "\n".join(lines)


def help_of(doc: str, *, command: str) -> str:
    """Return the text of --help: the first sentence, the command lines, and one entry per flag.

    Args:
      doc: Docstring of the command's module, whose flags are defined.
      command: Command as it is typed, such as "python -m recon_ad.train".
    """
    blocks = [block.rstrip() for block in doc.split("\n\n") if block.startswith("    ")]
    # A flag with a dot in its name is a config field that is set on the command line.
    own = flags.FLAGS.get_key_flags_for_module("__main__")
    lines = "\n".join(_lines([flag for flag in own if "." not in flag.name]))
    parts = [sentence_of(doc), *blocks, lines, f"More: {command} --helpfull"]
    return "\n\n".join(filter(None, parts))


def is_required(flag: flags.Flag) -> bool:
    """Return whether the flag is required."""
    return any(REQUIRED in str(check.message) for check in flag.validators)


def _lines(own: Sequence[flags.Flag]) -> list[str]:
    """Return one entry per flag, the required ones first."""
    rows = [
        (f"--{flag.name}", _text(flag)) for flag in sorted(own, key=lambda f: not is_required(f))
    ]
    if any(name == "--config" for name, _ in rows):
        rows.append(("--config.FIELD", "Set a field of the config, as in --config.seed=1."))
    indent = 4 + max((len(name) for name, _ in rows), default=0)
    columns = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    return [
        textwrap.fill(
            text, columns, initial_indent=f"  {name}".ljust(indent), subsequent_indent=" " * indent
        )
        for name, text in rows
    ]


def _text(flag: flags.Flag) -> str:
    """Return the flag's help, followed by "Required." or its default."""
    # Omits absl's remark on repeated flags, and the empty value of an enum.
    help_ = flag.help.partition(";\n")[0].replace("<|", "<")
    if is_required(flag):
        return f"{help_} Required."
    if flag.default in (None, "", False, []) or flag.name == "config":
        return help_
    default = f"{flag.default:g}" if isinstance(flag.default, float) else flag.default_as_str
    return f"{help_} Default: {default.strip(chr(39))}."
