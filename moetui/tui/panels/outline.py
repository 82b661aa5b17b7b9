"""The module tree as a person reads it: sums of parameters, and experts listed even where no module stands for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moetui.routing import ModelInfo, ModuleNode, ParameterInfo, Site, drawable
from moetui.routing.model import ModuleRole

_ROLE_WORDS = {"shared_expert": "shared experts", "router": "routers", "norm": "norms", "embedding": "embeddings"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the tree: a module, or one expert of a site.

    Attributes:
        path: module path; of an expert the path of its site's experts, with ``[e]``.
        label: the last part of the path, or ``E5``.
        note: what it is, dim beside the label.
        site: index of the site that it belongs to.
        expert: the expert's id; None for modules.
        parameters: numbers in it and below.
        nbytes: their bytes.
        parent: there are lines below it.
    """

    path: str
    label: str
    note: str = ""
    role: ModuleRole = "other"
    site: int | None = None
    expert: int | None = None
    parameters: int = 0
    nbytes: int = 0
    parent: bool = False


class Outline:
    """The tree of one model; children are made when asked for, so that thousands of experts cost nothing unseen."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self._nodes = {node.path: node for node in info.modules}
        self._below: dict[str, list[str]] = {}
        self._sums: dict[str, tuple[int, int]] = {}
        self._sites = {site.path: site for site in info.sites}
        self._layers: dict[str, Site] = {}
        for site in info.sites:
            for path in self.ancestors(site, None):
                self._layers.setdefault(path, site)
        for node in info.modules:
            if node.path:
                self._below.setdefault(node.path.rpartition(".")[0], []).append(node.path)
        for node in reversed(info.modules):
            self._add(node)

    def _add(self, node: ModuleNode) -> None:
        count = sum(parameter.count for parameter in node.parameters)
        nbytes = sum(parameter.own_nbytes for parameter in node.parameters)
        for path in self._below.get(node.path, ()):
            below = self._sums.get(path, (0, 0))
            count, nbytes = count + below[0], nbytes + below[1]
        self._sums[node.path] = (count, nbytes)

    @property
    def root(self) -> Entry:
        """The model itself; without a module tree (a foreign recording) a node over its sites alone."""
        info = self.info
        if "" in self._nodes:
            return self._module("")
        return Entry("", drawable(info.architecture or info.name), "no module tree", "model", parent=bool(info.sites))

    def children(self, entry: Entry) -> list[Entry]:
        """What stands right below an entry."""
        if entry.expert is not None:
            return []
        if not self._nodes:
            if not entry.path:
                return [self._bare_site(site) for site in self.info.sites]
            return self._experts(self.info.sites[entry.site]) if entry.site is not None else []
        site = self._sites.get(entry.path)
        modules = [
            self._module(path)
            for path in self._below.get(entry.path, ())
            if site is None or not path.rpartition(".")[2].isdigit()
        ]
        return modules + (self._experts(site) if site is not None else [])

    def by_role(self) -> dict[str, int]:
        """Parameters of the whole model by the role of the nearest module that has one."""
        sums: dict[str, int] = {}
        roles: dict[str, str] = {}
        for node in self.info.modules:
            above = roles.get(node.path.rpartition(".")[0], "other") if node.path else "other"
            role = above if node.role in ("other", "model") else node.role
            if above in ("experts", "shared_expert"):
                role = above
            roles[node.path] = role
            count = sum(parameter.count for parameter in node.parameters)
            sums[_ROLE_WORDS.get(role, role)] = sums.get(_ROLE_WORDS.get(role, role), 0) + count
        return sums

    def node(self, entry: Entry) -> ModuleNode | None:
        """The module of an entry; of an expert its own module, where it has one."""
        if entry.expert is None:
            return self._nodes.get(entry.path)
        return self._nodes.get(f"{self.info.sites[entry.site or 0].path}.{entry.expert}")

    def parameters(self, entry: Entry) -> list[ParameterInfo]:
        """Parameters with their names as seen from the entry; of an expert in fused tensors its slice of each."""
        if entry.expert is None or self.node(entry) is not None:
            node = self.node(entry)
            return list(self._tree_parameters(node.path)) if node is not None else []
        site = self.info.sites[entry.site or 0]
        fused = self._nodes.get(site.path)
        return [] if fused is None else _slices(fused.parameters, site, entry.expert)

    def ancestors(self, site: Site, expert: int | None) -> list[str]:
        """Paths to open so that a site, or its expert, is seen."""
        path = site.path if expert is not None else site.router_path
        parts = path.split(".")
        out = ["", *(".".join(parts[:n]) for n in range(1, len(parts)))]
        return [*out, path] if expert is not None else out

    def _tree_parameters(self, path: str, limit: int = 64) -> Sequence[ParameterInfo]:
        out: list[ParameterInfo] = []
        waiting = [path]
        while waiting and len(out) < limit:
            at = waiting.pop()
            prefix = at[len(path) :].lstrip(".")
            for parameter in self._nodes[at].parameters:
                name = f"{prefix}.{parameter.name}" if prefix else parameter.name
                out.append(replace(parameter, name=name))
            waiting.extend(reversed(self._below.get(at, [])))
        return out

    def _module(self, path: str) -> Entry:
        node = self._nodes[path]
        count, nbytes = self._sums[path]
        site = self._sites.get(path)
        note = drawable(node.class_name)
        if node.role == "router" and node.site is not None:
            note = router_note(self.info.sites[node.site])
        elif site is not None:
            note = _experts_note(site)
        elif node.role == "layer" and path in self._layers:
            note = f"MoE {self._layers[path].num_experts} top-{self._layers[path].top_k}"
        label = drawable(path.rpartition(".")[2]) if path else drawable(node.class_name)
        return Entry(
            path,
            label,
            note if path else "",
            node.role,
            node.site if site is None else site.index,
            None,
            count,
            nbytes,
            bool(self._below.get(path)) or site is not None,
        )

    def _bare_site(self, site: Site) -> Entry:
        note = _experts_note(site)
        return Entry(site.name, drawable(site.name), note, "experts", site.index, parent=True)

    def _experts(self, site: Site) -> list[Entry]:
        out = []
        for expert in range(site.num_experts):
            path = f"{site.path}.{expert}"
            if path in self._nodes:
                count, nbytes = self._sums[path]
            else:
                fused = self._nodes.get(site.path)
                parts = _slices(fused.parameters, site, expert) if fused is not None else []
                count, nbytes = sum(part.count for part in parts), sum(part.own_nbytes for part in parts)
            name = f"{site.path}[{expert}]"
            out.append(Entry(name, f"E{expert}", "", "experts", site.index, expert, count, nbytes))
        return out


def _experts_note(site: Site) -> str:
    return f"{site.num_experts} experts, top-{site.top_k}"


def router_note(site: Site) -> str:
    """A router's rule in a few words: ``softmax, renormalised``."""
    words = [site.scoring.replace("_", " ")]
    if site.normalised:
        words.append("renormalised")
    if site.selection_bias:
        words.append("selection bias")
    if site.groups > 1:
        words.append(f"{site.groups} groups")
    return ", ".join(words)


def _slices(parameters: Sequence[ParameterInfo], site: Site, expert: int) -> list[ParameterInfo]:
    """An expert's part of tensors whose first axis is the experts."""
    return [
        replace(
            parameter,
            name=f"{parameter.name}[{expert}]",
            shape=parameter.shape[1:],
            nbytes=parameter.nbytes // site.num_experts,
        )
        for parameter in parameters
        if parameter.shape and parameter.shape[0] == site.num_experts
    ]


def count_text(count: int) -> str:
    """A number of parameters: ``61,440``, ``3.4M``, ``46.7B``."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return f"{count:,}"


def bytes_text(count: float) -> str:
    """A number of bytes in binary units: ``13.0 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
