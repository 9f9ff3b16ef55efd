"""What the documentation shows is what the tool does."""

import re
from difflib import unified_diff
from pathlib import Path

import pytest

from docs.generate import EXAMPLES, PAGES, ROOT, SCHEMA, Page, run_command, schema_text
from hwcost.formula_grammar import FUNCTIONS
from hwcost.loading import available, load
from hwcost.ops import DERIVED, KINDS, SIZES

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)

#: Scripts that run in a second; those that search train for minutes, see tests/test_examples.py.
SCRIPTS = [
    path
    for path in sorted(EXAMPLES.glob("*.py"))
    if "__main__" in (text := path.read_text())
    and not re.search(r"^from (running|samples|quantizing) import", text, re.M)
]
each_example = pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
each_board = pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)


def changes(text: str, path: Path) -> str:
    """What would change in the file if it held ``text``."""
    lines = unified_diff(
        path.read_text().splitlines(), text.splitlines(), "written", "now", "", "", 1
    )
    return "\n".join(lines)


@pytest.mark.slow
@each_page
def test_a_page_shows_what_its_blocks_print(path: Path, tmp_path: Path) -> None:
    stale = changes(Page(path.read_text(), tmp_path).run(), path)
    assert not stale, f"python -m docs.generate brings it up to date\n{stale}"


@each_page
def test_a_page_has_no_block_that_does_not_run(path: Path) -> None:
    outside = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^(?:```| {4,}\S|\t|~~~|<pre).*", outside, re.MULTILINE) == []


@each_page
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_page
def test_lines_of_prose_fit_a_narrow_window(path: Path) -> None:
    shown = r"^```.*?^```$|^<!-- .*?^<!-- end -->$"
    prose = re.sub(shown, "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = prose.splitlines()
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


@pytest.mark.slow
@each_example
def test_an_example_prints_its_table(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    text, code = run_command(f"python {path.name}")
    assert code == 0 and len(text.splitlines()) > 2


@each_board
def test_a_board_of_the_examples_loads(path: Path) -> None:
    assert load(path).name == path.stem


def test_the_blocks_of_the_worked_example_are_the_example_file(tmp_path: Path) -> None:
    page = Page((ROOT / "docs" / "platforms.md").read_text(), tmp_path)
    page.run()
    shown = {
        name: data
        for name, data in page.files.items()
        if name in {"stm32l412.yaml", "stm32l412_npu.yaml"}
    }
    from hwcost.descriptor import read

    assert shown == {name: read(EXAMPLES / name, name).data for name in shown}


def test_every_name_of_a_formula_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "formulas.md").read_text()
    calls = [f"`{name}(" if f"`{name}(" in reference else f"{name}(" for name in FUNCTIONS]
    names = [*(f"`{name}`" for name in (*SIZES, *DERIVED)), *(f"### {kind}" for kind in KINDS)]
    assert [name for name in (*calls, *names) if name not in reference] == []


def test_every_shipped_platform_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in available() if name not in readme] == []


def test_the_schema_beside_the_platforms_is_the_present_one() -> None:
    assert SCHEMA.read_text() == schema_text()


@pytest.mark.parametrize("name", available())
def test_a_shipped_platform_points_editors_to_the_schema(name: str) -> None:
    first = (SCHEMA.parent / f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA.name}"


BROKEN = {
    "an unknown kind": ("```rust\nfn main() {}\n```\n", "a block of kind 'rust'"),
    "no kind": ("```\nx\n```\n", "a block of kind ''"),
    "print without output": ("```python\nprint(1)\n```\n", "python printed '1"),
    "output of nothing": ("```text\n1\n```\n", "no python block printed"),
    "unknown command": ("```console\n$ rm -rf x\n```\n", "unknown command 'rm -rf x'"),
    "no command": ("```console\nhwcost platforms\n```\n", r"starts with '\$ '"),
    "yaml without a name": ("```yaml\nname: x\n```\n", "needs <!-- NAME.yaml -->"),
    "make target": ("```console\n$ make nonsense\n```\n", "returned non-zero exit status"),
    "install of another project": ("```console\n$ pip install numpy\n```\n", "expected install -c"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_block_that_cannot_run_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message):
        Page(text, tmp_path).run()


def test_stale_output_is_replaced(tmp_path: Path) -> None:
    page = Page("```python\nprint(1 + 1)\n```\n```text\n3\n```\n", tmp_path)
    assert page.run() == "```python\nprint(1 + 1)\n```\n```text\n2\n```\n"
