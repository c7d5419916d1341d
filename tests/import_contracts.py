"""An import-linter contract of our own: certain modules of a slice are closed to its sibling slices."""

from __future__ import annotations

from dataclasses import dataclass

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


@dataclass(frozen=True)
class Trespass:
    """One import that reaches into a sibling's private module."""

    importer: str
    imported: str
    lines: tuple[int, ...]


class PrivateSlices(Contract):
    """Below `parent`, a module named in `private` is closed to sibling slices, not to modules outside them."""

    parent = fields.StringField()
    private = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        parent, private = str(self.parent), frozenset(str(name) for name in self.private)  # type: ignore[attr-defined]
        found = find_trespasses(graph, parent=parent, private=private)
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for trespass in check.metadata["found"]:
            lines = ", ".join(f"l.{line}" for line in trespass.lines)
            output.print_error(f"{trespass.importer} imports {trespass.imported} ({lines}); ask that domain's service.")
            output.new_line()


def find_trespasses(graph: ImportGraph, *, parent: str, private: frozenset[str]) -> list[Trespass]:
    """Every import between two different slices of `parent` that ends in a private module."""
    found = []
    for imported in sorted(graph.find_descendants(parent)):
        owner, name = _slice_of(imported, parent), _part_of(imported, parent)
        if name not in private:
            continue
        for importer in sorted(graph.find_modules_that_directly_import(imported)):
            if _slice_of(importer, parent) not in (None, owner):
                found.append(Trespass(importer, imported, _lines(graph, importer, imported)))
    return found


def _slice_of(module: str, parent: str) -> str | None:
    """The slice a module belongs to: `fleet` for `coordinator.domains.fleet.store.nodes`."""
    if not module.startswith(parent + "."):
        return None
    return module.removeprefix(parent + ".").split(".")[0]


def _part_of(module: str, parent: str) -> str | None:
    """The part within its slice: `store` for `coordinator.domains.fleet.store.nodes`."""
    steps = module.removeprefix(parent + ".").split(".")
    return steps[1] if len(steps) > 1 else None


def _lines(graph: ImportGraph, importer: str, imported: str) -> tuple[int, ...]:
    details = graph.get_import_details(importer=importer, imported=imported)
    return tuple(detail["line_number"] for detail in details)
