"""The keys of the Network tab, each of which asks something of one of its parts."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from moetui.routing.kept import newest_branch
from moetui.routing.timeline import TimelineView
from moetui.session import Session
from moetui.tui.keys import key_now
from moetui.tui.panels.questions import Questions, can_ask
from moetui.tui.widgets.context import Question
from moetui.tui.widgets.filter_line import FilterLine
from moetui.tui.widgets.heat_source import HeatSource
from moetui.tui.widgets.heatmap import Heatmap
from moetui.tui.widgets.sharing import Shared
from moetui.tui.widgets.token_detail import TokenDetail
from moetui.tui.widgets.token_rows import SORT_KEYS
from moetui.tui.widgets.token_table import TokenTable


class NetworkKeys(Widget):
    """Bindings and their actions; the panel itself says what its parts are and draws them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "follow", id="network.follow", tooltip="Follow the newest token, or stop"),
        Binding("slash", "filter", "filter", id="network.filter", key_display="/", tooltip="Show only some tokens"),
        Binding(
            "left_square_bracket",
            "layer(-1)",
            "layer",
            id="network.layer_before",
            key_display="[",
            show=False,
            tooltip="The layer before",
        ),
        Binding(
            "right_square_bracket",
            "layer(1)",
            "layer",
            id="network.layer_after",
            key_display="[ ]",
            tooltip="The layer after",
        ),
        Binding("v", "measure", "view", id="network.measure", tooltip="What the heatmap shows: load, gate mass ..."),
        Binding("w", "window", "window", id="network.window", tooltip="Of which tokens: last 64, run, all ..."),
        Binding(
            "r", "relative", "relative", id="network.relative", show=False, tooltip="Relative to uniform, or plain"
        ),
        Binding("B", "baseline", "baseline", id="network.baseline", show=False, tooltip="Compare with another branch"),
        Binding("t", "heat('swapped')", "turn", id="network.turn", show=False, tooltip="Swap rows and columns"),
        Binding("a", "heat('pooling')", "fold by", id="network.pooling", show=False, tooltip="Fold by maximum or mean"),
        Binding("d", "heat('numbers')", "digits", id="network.digits", show=False, tooltip="Numbers in the cells"),
        Binding(
            "A",
            "ask('attention')",
            "attention",
            id="network.attention",
            show=False,
            tooltip="What the token attended to: at this layer, in all",
        ),
        Binding(
            "W",
            "ask('attribution')",
            "why",
            id="network.why",
            show=False,
            tooltip="What earlier tokens were worth to its output, its routing",
        ),
        Binding("S", "sort", "sort", id="network.sort", show=False, tooltip="Sort the tokens by the next column"),
        Binding("R", "reverse", "reverse", id="network.reverse", show=False, tooltip="Reverse the order of tokens"),
        Binding("backslash", "hide", "hide others", id="network.hide", show=False, tooltip="Hide or show other tokens"),
        Binding(
            "greater_than_sign",
            "match(1)",
            "next match",
            id="network.next_match",
            show=False,
            tooltip="To the next token that matches",
        ),
        Binding(
            "less_than_sign",
            "match(-1)",
            "previous match",
            id="network.previous_match",
            show=False,
            tooltip="To the one before that matches",
        ),
        Binding("m", "mark", "mark", id="network.mark", show=False, tooltip="Mark the token, or unmark it"),
        Binding(
            "apostrophe",
            "next_mark",
            "next mark",
            id="network.next_mark",
            show=False,
            key_display="'",
            tooltip="To the next marked token",
        ),
    ]

    source: HeatSource
    questions: Questions
    _view: TimelineView | None
    _session: Session | None
    _hide: bool

    @property
    def tokens(self) -> TokenTable:
        """The table."""
        return self.query_one(TokenTable)

    @property
    def heatmap(self) -> Heatmap:
        """The heatmap."""
        return self.query_one(Heatmap)

    @property
    def detail(self) -> TokenDetail:
        """The selected token's detail."""
        return self.query_one(TokenDetail)

    def _draw(self) -> None:
        raise NotImplementedError

    def _arrange(self) -> None:
        raise NotImplementedError

    def _filter(self) -> None:
        raise NotImplementedError

    def action_ask(self, question: Question) -> None:
        """Ask the model what earlier tokens were to the selected one."""
        if self._session is not None:
            self.questions.press(question, self._session, self.tokens.token)

    # -- tokens -------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Type a filter."""
        self.query_one(FilterLine).focus_input()

    def action_hide(self) -> None:
        """Hide the tokens that do not match, or show them with the matches lit."""
        self._hide = not self._hide
        self._filter()

    def action_match(self, direction: int) -> None:
        """Go to the next or previous matching token."""
        at = self.tokens.token
        found = self.tokens.rows.next_match(-1 if at is None else at, direction)
        if found is None:
            self.notify("no token matches", markup=False)
        else:
            self.tokens.go_to(found)

    def action_follow(self) -> None:
        """Follow the newest token, or stop."""
        self.tokens.follow(not self.tokens.following)

    def action_layer(self, by: int) -> None:
        """The layer before or after."""
        self.tokens.action_layer(by)

    def action_measure(self) -> None:
        """Show another measure in the heatmap."""
        self.source.next_measure(self._view)
        self._draw()

    def action_window(self) -> None:
        """Show other tokens in the heatmap."""
        if self.source.measure == "difference" and not self.tokens.rows.filtered:
            key = key_now(self.app, "network.measure", "v")
            self.notify(f"a difference is of whole runs ({key} shows something else)", markup=False)
            return
        self.source.next_window(filtered=self.tokens.rows.filtered)
        self._draw()

    def action_relative(self) -> None:
        """Shares relative to uniform, or plain."""
        self.source.relative = not self.source.relative
        self._draw()

    def action_baseline(self) -> None:
        """Compare with another branch."""
        newest = None if self._view is None else newest_branch(self._view)
        if newest is None:
            return
        chosen = self.source.next_baseline(self._session.branches if self._session is not None else (), newest)
        if chosen is None:
            self.notify("there is no other run to compare with yet", markup=False)
            return
        self.source.measure = "difference"
        self._draw()

    def action_heat(self, what: str) -> None:
        """Flip a display option of the heatmap."""
        self.heatmap.toggle(what)
        self._arrange()

    def action_sort(self) -> None:
        """Sort by the next column; numbers largest first."""
        key = SORT_KEYS[(SORT_KEYS.index(self.tokens.sort.key) + 1) % len(SORT_KEYS)]
        self.tokens.set_sort(key, key not in ("index", "token", "branch", "layers"))

    def action_reverse(self) -> None:
        """Reverse the order."""
        self.tokens.set_sort(self.tokens.sort.key, not self.tokens.sort.descending)

    def action_mark(self) -> None:
        """Mark the token."""
        self.tokens.toggle_mark()

    def action_next_mark(self) -> None:
        """Go to the next marked token."""
        found = self.tokens.next_mark()
        if found is None:
            self.notify("no token is marked (m marks)", markup=False)
        else:
            self.tokens.go_to(found)

    def shared(self) -> Shared | None:
        """The table: what is handed on where no part has the focus."""
        return self.tokens.shared()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the keys that ask the model where there is none to ask."""
        if action == "ask" and self._session is not None:
            return can_ask(self._session, parameters[0])
        return super().check_action(action, parameters)
