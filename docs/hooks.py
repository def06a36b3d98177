"""Hooks of mkdocs: files of the repository that pages link to become part of the site.

Pages link to files outside docs/ by their relative path, as in `../results/README.md`, so that
links work where the repository is browsed. In the site these files lie under their own paths;
Markdown files among them become pages, and what they link to comes along.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
# The README's content is on the first page.
SAME = {"README.md": "index.md"}


def targets(text: str, path: str) -> set[str]:
    """Return the files outside docs/ that a page links to, as paths in the repository.

    Args:
      text: The page in Markdown.
      path: The page's path in the repository.
    """
    found = set()
    for _, link, _, _ in LINK.findall(text):
        target = repository_path(link, path)
        if target and (ROOT / target).is_file() and not target.startswith("docs/"):
            found.add(target)
    return found


def repository_path(link: str, path: str) -> str:
    """Return a relative link's target as a path in the repository, or "" for other links."""
    if "://" in link or link.startswith(("/", "mailto:")):
        return ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return "" if target.startswith("..") else target


def site_path(target: str) -> str:
    """Return where a file of the repository lies in the site's sources."""
    return target.removeprefix("docs/") if target.startswith("docs/") else SAME.get(target, target)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the linked files of the repository, and what those link to in turn."""
    del config
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    added: set[str] = set(SAME)
    while pages:
        path = pages.pop()
        for target in sorted(targets((ROOT / path).read_text(), path) - added):
            added.add(target)
            files.append(
                File(
                    target,
                    str(ROOT),
                    str(ROOT / "build" / "site"),
                    use_directory_urls=False,
                    inclusion=InclusionLevel.NOT_IN_NAV,
                )
            )
            if target.endswith(".md"):
                pages.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files of the repository as links within the site."""
    del config, files
    source = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()

    def rewritten(link: re.Match[str]) -> str:
        before, given, anchor, after = link.groups()
        target = repository_path(given, source)
        if not target or not (ROOT / target).exists():
            return link.group()
        inside = os.path.relpath(site_path(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"{before}{inside}{anchor or ''}{after}"

    return LINK.sub(rewritten, markdown)
