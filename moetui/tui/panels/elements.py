"""The Elements tab: the module tree at the left, what is known of the selected node at the right."""

from __future__ import annotations

from concurrent.futures import Future
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal

from moetui.routing import ModelInfo, MoetuiError, TimelineView, drawable
from moetui.session import Capability, Session
from moetui.tui.ink import ink_of
from moetui.tui.messages import Selection, SiteSelected, Stop
from moetui.tui.panels.element_facts import Recent, expert_facts, recent, router_facts, usage
from moetui.tui.panels.element_sharing import (
    HEADER,
    Fact,
    expert_shared,
    inspected_shared,
    module_shared,
    parameter_shared,
    site_shared,
    weight_shared,
)
from moetui.tui.panels.element_text import (
    LABEL,
    Rows,
    expert_rows,
    inspected_rows,
    module_rows,
    parameter_rows,
    part_rows,
    rows_text,
    site_rows,
    weight_rows,
)
from moetui.tui.panels.inspected import Inspected
from moetui.tui.panels.outline import Entry, Outline
from moetui.tui.panels.outline_view import OutlineView
from moetui.tui.panels.weights import WeightFacts, weight_reader
from moetui.tui.widgets.box import Box, Facts
from moetui.tui.widgets.sharing import Shared


class ElementsPanel(Horizontal):
    """Tree and details, one selection."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"fact--{name}" for name in ("label", "dim", "strong", "bar", "bad")}
    DEFAULT_CSS = """
    ElementsPanel {
        height: 1fr;
        & > OutlineView { width: 46%; border: round $border-blurred; border-title-color: $foreground-muted; }
        & > OutlineView:focus { border: round $border; border-title-color: $accent; }
        & > #facts { width: 1fr; border: round $border-blurred; padding: 0 1; border-title-color: $foreground-muted; }
        & > #facts:focus { border: round $border; border-title-color: $accent; }
        & #facts-text { width: 1fr; height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
        & .fact--label { color: $foreground-muted; }
        & .fact--dim { color: $foreground-muted; }
        & .fact--strong { text-style: bold; }
        & .fact--bar { color: $accent; }
        & .fact--bad { color: $text-error; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._info: ModelInfo | None = None
        self._outline: Outline | None = None
        self._view: TimelineView | None = None
        self._session: Session | None = None
        self._weights: dict[str, tuple[WeightFacts, ...] | str] = {}
        self._asked: set[str] = set()
        self._inspected = Inspected(self._show)
        self._stop: Stop | None = None

    def compose(self) -> ComposeResult:
        """Tree, details."""
        tree = OutlineView(id="outline")
        tree.border_title = "model"
        yield tree
        with Box(id="facts"):
            yield Facts(id="facts-text")

    def shared(self) -> Shared | None:
        """The tree: what is handed on where no part has the focus."""
        return self.view.shared()

    @property
    def view(self) -> OutlineView:
        """The module tree."""
        return self.query_one(OutlineView)

    def show_stop(self, stop: Stop | None) -> None:
        """Mark the router at which the run stands."""
        if self.is_mounted:
            self.view.stop_at(None if stop is None else stop.site)
        if stop != self._stop:
            self._stop = stop
            self._inspected.forget()

    def refresh_from(self, view: TimelineView, session: Session) -> None:
        """Draw this view."""
        self._view, self._session = view, session
        info = session.info
        if info is None:
            return
        if self._info is None or info.modules is not self._info.modules or info.sites != self._info.sites:
            self._outline = Outline(info)
            self.view.load(self._outline)
            self.select(self.app.selection if hasattr(self.app, "selection") else Selection())
        self._info = info
        seen = recent(view)
        self.view.show_usage(usage(view, seen))
        self._show(seen)

    def on_resize(self) -> None:
        """Bars and lines as long as there is room for."""
        self._show()

    def select(self, selection: Selection) -> None:
        """Move to the selected router or expert."""
        if selection.site is not None and self._outline is not None:
            self.view.reveal(selection.site, selection.expert)
            self._show()

    @on(OutlineView.Moved)
    def _moved(self, event: OutlineView.Moved) -> None:
        event.stop()
        entry = event.entry
        self._show()
        if entry.site is not None and (entry.expert is not None or entry.role == "router"):
            self.post_message(SiteSelected(entry.site, entry.expert))

    def _show(self, seen: Recent | None = None) -> None:
        entry, outline, view = self.view.entry, self._outline, self._view
        if entry is None or outline is None or view is None:
            return
        seen = seen or recent(view)
        rows: Rows = []
        facts: list[Fact] = [HEADER]
        site = None if entry.site is None else outline.info.sites[entry.site]
        box, ink = self.query_one("#facts", Box), ink_of(self)
        room = max(0, box.room - LABEL)
        if site is not None and entry.expert is not None:
            title = f"{drawable(site.name)} · expert {entry.expert}"
            expert = expert_facts(seen, site, entry.expert)
            rows += expert_rows(expert, view, ink)
            facts += expert_shared(expert, view)
        elif site is not None:
            title = f"{drawable(site.name)} · {entry.label}"
            router = router_facts(seen, site)
            rows += site_rows(router, site, ink, room)
            facts += site_shared(router, site)
        else:
            title = drawable(entry.path) or entry.label
        node = outline.node(entry)
        if node is not None and self._session is not None:
            told = self._inspected.of(self._session, node.path, self.app)
            rows += inspected_rows(told)
            facts += inspected_shared(told)
        if not entry.path:
            rows += module_rows(outline.info) + part_rows(outline, ink, room)
            facts += module_shared(outline.info, outline)
        else:
            weights = self._weights_of(entry, outline)
            rows += [] if weights is None else weight_rows(self._weights.get(weights), ink, room)
            rows += parameter_rows(entry, outline)
            facts += weight_shared(self._weights.get(weights or ""))
            facts += parameter_shared(entry, outline)
        box.border_title = title
        box.offer(("moetui-element", lambda: facts))
        self.query_one("#facts-text", Facts).say(self._text(rows))

    def _text(self, rows: Rows) -> Text:
        styles: dict[str, Style] = {
            name: self.get_component_rich_style(f"fact--{name}", partial=True)
            for name in ("label", "dim", "strong", "bar", "bad")
        }
        return rows_text(rows, styles, ink_of(self), width=self.query_one("#facts", Box).room)

    # ------------------------------------------------------------------ weights

    def _weights_of(self, entry: Entry, outline: Outline) -> str | None:
        """Under which name a node's weights are held once they are read; None where there are none to be read."""
        session = self._session
        node = outline.node(entry)
        if session is None or Capability.INSPECT not in session.capabilities:
            return None
        path, expert = (node.path, None) if node is not None else ("", entry.expert)
        if node is None and entry.expert is not None and entry.site is not None:
            path = outline.info.sites[entry.site].path
        direct = node is None or any(len(parameter.shape) > 1 for parameter in node.parameters)
        if not path or not direct:
            return None
        key = f"{path}[{expert}]"
        if key not in self._asked:
            self._asked.add(key)
            self._ask(session, key, path, expert)
        return key

    def _ask(self, session: Session, key: str, path: str, expert: int | None) -> None:
        app = self.app

        def answered(future: Future[tuple[WeightFacts, ...]]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            found = f"{type(error).__name__}: {error}" if error is not None else future.result()
            app.call_later(self._answer, key, found)

        try:
            session.call(weight_reader(path, expert)).add_done_callback(answered)
        except MoetuiError as error:
            self._weights[key] = error.message

    def _answer(self, key: str, found: tuple[WeightFacts, ...] | str) -> None:
        if len(self._weights) > 512:
            self._weights.clear()
            self._asked.clear()
        self._weights[key] = found
        self._show()
