"""`summary`: which tensors of a model are parametrized, by what, and how well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc.caching.active import active_scopes
from paramdesc.caching.scopes import AUTO
from paramdesc.chain.chain import Chain
from paramdesc.chain.table import fill, html_table, text_table
from paramdesc.models.rows import SummaryRow
from paramdesc.models.selection import (
    Place,
    Selector,
    Selectors,
    as_selectors,
    iterate_places,
    make_test,
    parametrized_names,
)
from paramdesc.models.trial import constrained_map, measure, try_on
from paramdesc.models.unmatched import refuse_unknown, refuse_unmatched
from paramdesc.registration.host import check_model
from paramdesc.registration.lazy import PendingRegistration

__all__ = ["Summary", "summary"]

LARGE = 2**18
"""The number of entries above which a tensor is evaluated only if `evaluate=True`."""
TITLES = (
    "tensor", "parametrization", "shape", "originals", "trained", "plain", "dtype", "device",
    "deviation", "notes",
)  # fmt: skip


class Summary(Sequence[SummaryRow]):
    """The parametrized tensors of a model. It prints as a table.

    Attributes:
        trained: The number of trained entries of all rows. Shared Parameters count once.
        plain: The number of entries of all values.
    """

    def __init__(self, rows: Iterable[SummaryRow], trained: int) -> None:
        self._rows = tuple(rows)
        self.trained = trained
        self.plain = sum(row.plain for row in self._rows)

    @overload
    def __getitem__(self, key: int | str) -> SummaryRow: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[SummaryRow]: ...
    def __getitem__(self, key: int | str | slice) -> SummaryRow | Sequence[SummaryRow]:
        """A row by index or by name."""
        if not isinstance(key, str):
            return self._rows[key]
        for row in self._rows:
            if key == row.name or key in row.also:
                return row
        raise KeyError(f"{key!r}. Rows: {', '.join(repr(row.name) for row in self._rows)}")

    def __iter__(self) -> Iterator[SummaryRow]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _ipython_key_completions_(self) -> list[str]:
        return [row.name for row in self._rows]

    def __str__(self) -> str:
        if not self._rows:
            return self.total()
        return f"{text_table(TITLES, grouped_cells(self._rows))}\n\n{fill(self.total())}"

    def _repr_html_(self) -> str:
        return html_table(TITLES, grouped_cells(self._rows), self.total())

    def __repr__(self) -> str:
        return f"<Summary: {self.total()}>"

    def total(self) -> str:
        """The last line of the table."""
        what = "tensor" if len(self) == 1 else "tensors"
        if not self._rows:
            return "0 parametrized tensors"
        return (
            f"{len(self)} parametrized {what}, {self.trained:,} trained numbers "
            f"(plain: {self.plain:,})"
        )


def summary(
    model: Module,
    *selectors: Selector,
    exclude: Selectors = (),
    evaluate: bool | None = None,
) -> Summary:
    """List the parametrized tensors of `model`, with their maps, shapes and constraints.

    Values are evaluated on copies in evaluation mode, so warm starts, caches, read counts and the
    state of random number generators do not change. Tensors parametrized by
    `torch.nn.utils.parametrize` are listed too.

    Args:
        selectors: the tensors to list: patterns for paths or names, types of modules, submodules,
            or tuples of these. By default, all.
        exclude: the tensors to leave out: a selector, or several in a list.
        evaluate: whether to evaluate values to find their deviation. By default, this is done for
            values of up to 262,144 entries. Tensors on the meta device are never evaluated.

    Raises:
        SelectionError: a ValueError, if a selector matches no parametrized tensor, or an exclusion
            no tensor of the model.
        TypeError: if `model` is not a module.

    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    >>> _ = register_parametrization(model[0], "weight", Symmetric())
    >>> found = summary(model)
    >>> found["0.weight"].maps
    ('Symmetric()',)
    >>> found["0.weight"].is_satisfied
    True
    """
    check_model("summary", model)
    excluded = as_selectors(exclude)
    places = [place for place in iterate_places(model) if chain_at(place) is not None]
    tests = [(selector, make_test(selector)) for selector in selectors]
    barred = [make_test(selector) for selector in excluded]
    used = [s for s, test in tests if any(map(test, places))]
    refuse_unmatched(selectors, used, places, kind="parametrized tensor")
    refuse_unknown(excluded, places, model, "exclude")
    by_chain: dict[Any, list[Place]] = {}
    for place in places:
        if (not tests or any(test(place) for _, test in tests)) and not any(
            test(place) for test in barred
        ):
            by_chain.setdefault(chain_at(place), []).append(place)
    rows = [row_of(chain, found, evaluate) for chain, found in by_chain.items()]
    trained = {
        id(x): x.numel()
        for chain in by_chain
        if isinstance(chain, Module)
        for x in chain.parameters()
        if x.requires_grad
    }
    return Summary(rows, sum(trained.values()))


def chain_at(place: Place) -> Any:
    """The chain of a parametrized tensor, or its pending registrations; None for a plain one."""
    if place.tensor_name in parametrized_names(place.module):
        chains: Any = place.module._modules["parametrizations"]
        return chains._modules[place.tensor_name]
    waiting = tuple(
        hook
        for hook in place.module._forward_pre_hooks.values()
        if isinstance(hook, PendingRegistration) and hook.tensor_name == place.tensor_name
    )
    return waiting or None


def row_of(chain: Any, places: list[Place], evaluate: bool | None) -> SummaryRow:
    name, *also = [place.path for place in places]
    if isinstance(chain, tuple):  # pending registrations
        device, dtype = chain[0].kind
        maps = tuple(one_line(hook.parametrization) for hook in chain)
        return SummaryRow(name, "pending", maps, None, dtype, device)
    maps_of = [child for key, child in chain._modules.items() if key.isdigit()]
    originals = originals_of(chain)
    value = try_on(chain, meta=True)
    size = value.numel() if value is not None else sum(x.numel() for x in originals.values())
    device = next((x.device for x in originals.values()), None)
    last = constrained_map(maps_of)
    wanted = size <= LARGE if evaluate is None else evaluate
    measured = None
    has_values = device is not None and device.type != "meta"
    if wanted and has_values and (last is not None or value is None):
        value = try_on(chain, meta=False)
        measured = None if value is None or last is None else measure(last, value)
    learned = sum(x.numel() for x in chain.parameters() if x.requires_grad)
    return SummaryRow(
        name=name,
        engine="paramdesc" if isinstance(chain, Chain) else "torch",
        maps=tuple(map(one_line, maps_of)),
        shape=None if value is None else tuple(value.shape),
        dtype=None if value is None else value.dtype,
        device=device,
        originals={key: tuple(x.shape) for key, x in originals.items()},
        trained=learned,
        plain=0 if value is None else value.numel(),
        frozen=learned == 0,
        also=tuple(also),
        kept=kept_in(chain),
        constraint="" if last is None else last.constraint,
        deviation=None if measured is None else measured[0],
        tolerance=None if measured is None else measured[1],
    )


def originals_of(chain: Any) -> dict[str, Tensor]:
    """The originals of a chain. A parametrized original is replaced by its own originals."""
    inner = "parametrizations."
    found = [*chain.named_parameters(), *chain.named_buffers()]
    return {
        name: x for name, x in found if (name.startswith(("original", inner)) and not is_lazy(x))
    }


def kept_in(chain: Any) -> tuple[str, ...]:
    """The caches that have a value of `chain`, seen from here."""
    found = ["auto_cache"] if isinstance(chain, Chain) and AUTO.entries.get(chain) else []
    found += [
        "persistent" if scope.lasts else "cached"
        for scope in active_scopes()
        if scope.entries.get(chain) is not None
    ]
    return tuple(dict.fromkeys(found))


def one_line(module: Module) -> str:
    """The `repr` of a module in one line."""
    return re.sub(r"\s*\n\s*", " ", repr(module)).replace("( ", "(").replace(" )", ")")


def grouped_cells(rows: Iterable[SummaryRow]) -> list[list[str]]:
    """A line of the table for each row, or for all rows whose paths differ only in numbers."""
    groups: dict[Any, list[SummaryRow]] = {}
    for row in rows:
        pattern = ".".join("*" if part.isdigit() else part for part in row.name.split("."))
        described = cells(row)[1:8], notes(row), row.also
        groups.setdefault((pattern, str(described)), []).append(row)
    table = []
    for (pattern, _), group in groups.items():
        row = max(group, key=lambda x: -1.0 if x.deviation is None else x.deviation)
        line = cells(row)
        if len(group) > 1:
            line[0] = f"{pattern} ×{len(group)}"
        table.append(line)
    return table


def cells(row: SummaryRow) -> list[str]:
    originals = ", ".join(f"{name} {size(shape)}" for name, shape in row.originals.items())
    return [
        row.name,
        ", ".join(row.maps),
        size(row.shape),
        originals or "-",
        f"{row.trained:,}",
        f"{row.plain:,}",
        str(row.dtype).removeprefix("torch.") if row.dtype else "-",
        str(row.device or "-"),
        "-" if row.deviation is None else f"{row.deviation:.1e}",
        notes(row) or "-",
    ]


def size(shape: tuple[int, ...] | None) -> str:
    """A shape as text: `64×64`."""
    if shape is None:
        return "-"
    return "×".join(map(str, shape)) if shape else "scalar"


def notes(row: SummaryRow) -> str:
    found = [] if row.engine == "paramdesc" else [row.engine]
    found += ["frozen"] * (row.frozen and row.engine != "pending")
    found += [f"kept: {', '.join(row.kept)}"] * bool(row.kept)
    found += [f"also {', '.join(row.also)}"] * bool(row.also)
    found += [f"not {row.constraint}"] * (row.is_satisfied is False)
    return "; ".join(found)
