"""Each parametrization has a page with a formula, its purpose, an example, and alternatives."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Module

import paramdesc
from paramdesc import parametrizations
from tests.parametrizations.all_cases import CASES

BASES = {"LinearStructure"}  # to derive from
TENSORS_TOGETHER = {"joint"}  # a function that has a page, like a class


@pytest.fixture
def catalog(site: Any) -> Any:
    return site("catalog")


@pytest.fixture
def pages(catalog: Any, tmp_path: Path) -> dict[str, str]:
    catalog.write_pages(tmp_path)
    return {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md")}


def public(kind: type) -> set[str]:
    found = {name: getattr(parametrizations, name) for name in parametrizations.__all__}
    if kind is Module:
        return {name for name, map_ in found.items() if inspect.isclass(map_)}
    return {name for name, function in found.items() if inspect.isfunction(function)}


def test_each_map_has_a_page(catalog: Any, pages: dict[str, str]) -> None:
    assert set(catalog.FACTS) == public(Module) - BASES | TENSORS_TOGETHER
    assert set(pages) == {fact.page for fact in catalog.FACTS.values()} | {"index"}


def test_each_function_is_on_one_page(catalog: Any) -> None:
    listed = [name for fact in catalog.FACTS.values() for name in fact.functions]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == public(type(public))


def test_a_page_has_all_its_parts(catalog: Any, pages: dict[str, str]) -> None:
    for fact in catalog.FACTS.values():
        page = pages[fact.page]
        for part in (fact.formula, fact.use, "only-light", "only-dark", "Right inverse\n: "):
            assert part in page, fact.name
        for heading in (f"# {fact.title}", "## When to use it", "## Example", "## Reference"):
            assert f"\n{heading}\n" in page, fact.name
        assert fact.purpose in pages["index"]
        assert fact.formula.count("{") == fact.formula.count("}"), fact.name


def test_what_to_take_instead_is_something_else_that_exists(catalog: Any) -> None:
    for fact in catalog.FACTS.values():
        assert fact.instead, fact.name
        for name, reason in fact.instead:
            assert name != fact.name
            assert name in catalog.FACTS or hasattr(paramdesc, name)
            assert not reason.endswith(".")
        for _, call in fact.variants:
            assert hasattr(parametrizations, call.partition("(")[0])


def test_examples_run_as_they_are_copied(catalog: Any, pages: dict[str, str]) -> None:
    for fact in catalog.FACTS.values():
        (code,) = re.findall(r"```python\n(.*?)```", pages[fact.page], flags=re.DOTALL)
        assert ">>>" not in code
        assert "paramdesc" in code
        torch.manual_seed(0)
        exec(compile(code, f"the example of {fact.name}", "exec"), {"__name__": fact.name})


def test_launches_are_those_of_a_case_of_the_map(catalog: Any) -> None:
    page, launches = catalog.read_launches()
    assert (Path(__file__).parents[2] / "docs" / f"{page}.md").exists()
    for fact in catalog.FACTS.values():
        if fact.launches:
            assert type(CASES[fact.launches].make()).__name__ == fact.name
            assert launches[fact.launches].both > 0


def test_costs_of_all_maps_of_matrices_are_told(catalog: Any) -> None:
    unknown = {fact.name for fact in catalog.FACTS.values() if not fact.cost}
    assert unknown == {"FromDistributions", "TorchOrthogonal"}  # those of torch's formulas


def test_each_linked_paper_is_cited(catalog: Any) -> None:
    source = Path(inspect.getfile(parametrizations)).parent
    cited = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    cited = " ".join(cited.split())
    for title, address in catalog.LINKS.items():
        assert f"*{title}*" in cited, title
        assert address.startswith("https://")


def test_a_title_over_two_lines_becomes_a_link(catalog: Any) -> None:
    text = "Source: M. Zaheer et al., *Deep\nsets*, NeurIPS 2017; *Shallow sets*, 2018."
    assert catalog.linked(text) == (
        "Source: M. Zaheer et al., `Deep\nsets <https://arxiv.org/abs/1703.06114>`__, "
        "NeurIPS 2017; *Shallow sets*, 2018."
    )


def test_a_session_becomes_code_with_the_imports_that_it_needs(catalog: Any) -> None:
    loop = ">>> for i in range(2):\n...     print(Symmetric(), i)\n0\n1"
    session = f"{loop}\n>>> torch.ones(i)\ntensor([1.])"
    assert catalog.as_code(session, with_imports=True) == (
        "import torch\nfrom paramdesc.parametrizations import Symmetric\n\n"
        "for i in range(2):\n    print(Symmetric(), i)\n# 0\n# 1\ntorch.ones(i)\n# tensor([1.])"
    )


def test_pages_of_former_maps_are_removed(catalog: Any, tmp_path: Path) -> None:
    (tmp_path / "former.md").write_text("# Former", encoding="utf-8")
    catalog.write_pages(tmp_path)
    assert not (tmp_path / "former.md").exists()
