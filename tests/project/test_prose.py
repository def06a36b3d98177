"""Docstrings of functions begin with a verb; ruff checks its mood and the first line."""

import ast

import pytest
from helpers.paths import ROOT

# What a summary begins with that has no verb, or puts it at the end.
NO_VERBS = {
    "A", "All", "An", "As", "Both", "By", "Each", "Every", "For", "From", "How", "In", "Its", "No",
    "Of", "One", "That", "The", "These", "Those", "True", "Two", "What", "When", "Where",
    "Whether", "Which", "With",
}  # fmt: skip


def first_words(path):
    """Yield the place and the first word of each function's docstring but properties'."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        kinds = [ast.unparse(decorator) for decorator in node.decorator_list]
        docstring = ast.get_docstring(node)
        if docstring and not any("property" in kind for kind in kinds):
            yield f"{path.name}:{node.lineno} {node.name}", docstring.split()[0].rstrip(",")


@pytest.mark.parametrize("folder", ["recon_ad", "benchmarks", "configs", "examples"])
def test_docstrings_of_functions_begin_with_a_verb(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = [(place, word) for f in files for place, word in first_words(f) if word in NO_VERBS]
    assert not wrong
