"""The lists of the diff screen: pairs of tokens, sites, flips."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content

from moetui.routing import drawable
from moetui.routing.compare import Flip, SiteComparison
from moetui.tui.cells import Line, fit, number
from moetui.tui.glyphs import expert_digit
from moetui.tui.widgets.diff_rows import NOBODY, Side, TwoRuns
from moetui.tui.widgets.row_list import RowList
from moetui.tui.widgets.sharing import Rows, Shared

_TEXT = 18  # cells a token's text takes at most
_BAR = 10


class PairList(RowList):
    """Pairs of tokens: the first run's first choices in their colours, of the second's only those that changed."""

    def __init__(self, runs: TwoRuns, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._runs = runs
        self.site = 0

    @property
    def total(self) -> int:
        """Rows."""
        return len(self._runs.numbers)

    def shared(self) -> Shared | None:
        """The pairs: experts of a token by site joined by +, sites by blanks."""
        runs = self._runs

        def rows() -> Rows:
            yield ("position", "index_a", "token_a", "experts_a", "index_b", "token_b", "experts_b", "flips")
            for row, (left, right) in enumerate(runs.numbers.tolist()):
                side, token = (runs.a, left) if left != NOBODY else (runs.b, right)
                position = int(side.view.tokens(token, token + 1).position[0])
                one, other = (_joined(experts) for experts in runs.experts(row))
                a, b = ("" if number == NOBODY else number for number in (left, right))
                yield (position, a, _text(runs.a, left), one, b, _text(runs.b, right), other, int(runs.flips[row]))

        return "moetui-pairs", rows

    def header(self, width: int) -> Line:
        """Which column is which run."""
        text, strip = self._widths(width)
        head, mark = self.pen("head"), self._marks()
        title = fit("layers", strip) if strip >= len("layers") else " " * strip
        line = (
            Line().add(fit("#", 6, "right") + "  ", head).add(fit("A", text), self.pen("accent")).add(f" {title}", head)
        )
        line.add(" " * (len(mark) + 2), head).add(fit("B", text), self.pen("warn"))
        return line.add(f" {fit('changed', strip) if strip >= len('changed') else title}", head).add("  flips", head)

    def draw_row(self, row: int, width: int, *, selected: bool) -> Line:
        """A pair."""
        runs, glyphs = self._runs, self.ink.glyphs
        text, strip = self._widths(width)
        plain, dim = self.row_pen("", selected), self.row_pen("dim", selected)
        left, right = runs.numbers[row].tolist()
        same = bool(runs.same[row])
        first = row in (runs.first_other_token, runs.first_other_experts)
        line = Line().add(glyphs.selected if selected else " ", self.row_pen("accent", selected))
        side, token = (runs.a, left) if left != NOBODY else (runs.b, right)
        position = int(side.view.tokens(token, token + 1).position[0])
        line.add(fit(str(position), 5, "right"), dim)
        line.add(glyphs.mark if first else " ", self.row_pen("warn", selected)).add(" ", plain)
        line.add(
            fit(_text(runs.a, left), text, ellipsis=glyphs.ellipsis),
            plain,
        )
        experts_a, experts_b = runs.experts(row)
        line.add(" ", plain)
        self._strip(line, experts_a, None, strip, selected)
        line.add(f" {self._marks() if not same else ' '} ", self.row_pen("bad", selected))
        line.add(
            fit(_text(runs.b, right), text, ellipsis=glyphs.ellipsis), dim if same else self.row_pen("warn", selected)
        )
        line.add(" ", plain)
        self._strip(line, experts_b, experts_a, strip, selected)
        flips = int(runs.flips[row])
        return line.add(fit(str(flips) if flips else "", 7, "right"), plain)

    def _strip(
        self,
        line: Line,
        experts: tuple[tuple[int, ...], ...] | None,
        before: tuple[tuple[int, ...], ...] | None,
        width: int,
        selected: bool,
    ) -> None:
        """First choices by site; with ``before`` only where other experts were chosen."""
        sites = self._runs.a.sites
        start = max(0, min(self.site - width // 2, len(sites) - width))
        if experts is None:
            line.space(width, self.row_pen("", selected))
            return
        for index in range(start, start + width):
            chosen, site = experts[index], sites[index]
            unchanged = before is not None and set(before[index]) == set(chosen)
            if unchanged or not chosen:
                line.add(self.ink.glyphs.zero, self.row_pen("dim", selected))
                continue
            mark = expert_digit(chosen[0], site.num_experts) if self.ink.by_digit else self.ink.glyphs.block
            line.add(mark, self.expert_pen(chosen[0], selected))

    def _marks(self) -> str:
        return "!" if self.ink.ascii_only else "≠"

    def _widths(self, width: int) -> tuple[int, int]:
        """Cells of a text and of a strip."""
        room = width - 8 - 3 - 2 - 7
        strip = max(1, min(len(self._runs.a.sites), (room - 2 * 6) // 2))
        return max(1, min(_TEXT, (room - 2 * strip) // 2)), strip


def _text(side: Side, token: int) -> str:
    if token == NOBODY:
        return ""
    return drawable(side.view.text(int(side.view.tokens(token, token + 1).token_id[0])), spaces=True) or "‹›"


def _joined(experts: tuple[tuple[int, ...], ...] | None) -> str:
    return " ".join("+".join(map(str, chosen)) or "-" for chosen in experts or ())


# title, cells, what it says of a site, digits; the last ones are left out where room is short
_Column = tuple[str, int, Callable[[SiteComparison], float | None], int]
_COLUMNS: tuple[_Column, ...] = (
    ("set", 4, lambda site: site.same_set, 2),
    ("jacc", 4, lambda site: site.jaccard, 2),
    ("KL", 6, lambda site: site.kl, 3),
    ("L1", 4, lambda site: site.l1, 2),
    ("shift", 5, lambda site: site.load_shift, 2),
    ("H", 5, lambda site: site.entropy_shift, 2),
)


class SiteList(RowList):
    """Sites: how far the two agree."""

    EMPTY = "no site in common"

    def __init__(self, runs: TwoRuns, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._runs = runs
        self.prefix = False

    @property
    def sites(self) -> tuple[SiteComparison, ...]:
        """Over all pairs, or over those before any token differs."""
        return self._runs.comparison.prefix_sites if self.prefix else self._runs.comparison.sites

    @property
    def total(self) -> int:
        """Sites."""
        return len(self.sites)

    def shared(self) -> Shared | None:
        """The sites; nothing where a number is unknown."""
        sites = self.sites

        def rows() -> Rows:
            yield ("site", "same_top1", "same_set", "jaccard", "kl", "l1", "load_shift", "entropy_shift", "flips")
            for site in sites:
                yield (
                    *(site.site, site.same_top1, site.same_set, site.jaccard, site.kl, site.l1),
                    *(site.load_shift, site.entropy_shift, site.flips),
                )

        return "moetui-sites", rows

    def show(self, *, prefix: bool) -> None:
        """Say which pairs are measured."""
        self.prefix = prefix
        same, pairs = self._runs.comparison.common_prefix, self._runs.comparison.tokens
        words = f"sites · {same:,} pairs before any token differs" if prefix else f"sites · all {pairs:,} pairs"
        self.border_title = Content(self.ink.words(words))
        self.refresh()

    def header(self, width: int) -> Line:
        """What the columns are."""
        bar, columns = self._plan(width)
        line = Line().add(" " + fit("", self._label) + fit("same top-1", bar + 5, "right"), self.pen("head"))
        for title, cells, _, _ in columns:
            shown = f"{self.ink.glyphs.delta}H" if title == "H" else title
            line.add(fit(shown, cells + 1, "right"), self.pen("head"))
        return line.add("  flips", self.pen("head"))

    def draw_row(self, row: int, width: int, *, selected: bool) -> Line:
        """A site."""
        site, glyphs = self.sites[row], self.ink.glyphs
        bar, columns = self._plan(width)
        plain, dim = self.row_pen("", selected), self.row_pen("dim", selected)
        line = Line().add(glyphs.selected if selected else " ", self.row_pen("accent", selected))
        line.add(fit(drawable(site.site), self._label, ellipsis=glyphs.ellipsis), self.row_pen("strong", selected))
        share = site.same_top1
        filled = 0 if share is None else round(share * bar)
        pen = "dim" if share is None else "good" if share > 0.9 else "warn" if share > 0.5 else "bad"
        line.add(glyphs.bar * filled, self.row_pen(pen, selected)).add(glyphs.zero * (bar - filled), dim)
        line.add(fit(glyphs.dash if share is None else f"{share:.0%}", 5, "right"), plain)
        for _, cells, value, digits in columns:
            found = value(site)
            text = glyphs.dash if found is None else number(found, digits)
            line.add(fit(text, cells + 1, "right"), dim if found is None else plain)
        return line.add(fit(f"{site.flips:,}", 7, "right"), plain if site.flips else dim)

    @property
    def _label(self) -> int:
        return max(3, min(12, max((len(drawable(site.site)) for site in self.sites), default=3))) + 1

    def _plan(self, width: int) -> tuple[int, tuple[_Column, ...]]:
        """Cells of the bar, and the columns that have room."""
        columns = _COLUMNS
        while len(columns) > 1 and self._rest(width, columns) < 6:
            columns = columns[:-1]
        return max(5, min(_BAR, self._rest(width, columns))), columns

    def _rest(self, width: int, columns: tuple[_Column, ...]) -> int:
        return width - 1 - self._label - 5 - 7 - sum(cells + 1 for _, cells, _, _ in columns)


class FlipList(RowList):
    """Flips of tokens that are the same in both, those against the largest margins first."""

    def __init__(self, runs: TwoRuns, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._runs = runs
        self.prefix = False

    @property
    def flips(self) -> tuple[Flip, ...]:
        """Those of the same token, or those before any token differs."""
        return self._runs.comparison.prefix_flips if self.prefix else self._runs.comparison.top_flips

    @property
    def empty(self) -> str:
        """Which tokens went to the same experts."""
        if not self._runs.comparison.flips:
            return "every token went to the same experts"
        if self.prefix:
            return "the same experts before any token differs"
        return "the same experts wherever the tokens are the same"

    def show(self, *, prefix: bool) -> None:
        """Say which pairs are listed."""
        self.prefix = prefix
        found, listed = self._runs.comparison, len(self.flips)
        count = sum(site.flips for site in found.prefix_sites) if prefix else found.flips - found.other_token_flips
        words = f"{f'{listed:,} of ' if listed < count else ''}{count:,} by margin"
        if prefix:
            words = f"flips before any token differs · {words}"
        elif found.other_token_flips:
            words = f"flips · {words} · {found.other_token_flips:,} where tokens differ"
        else:
            words = f"flips · {words}"
        self.border_title = Content(self.ink.words(words))
        self.move_cursor(0)
        self.refresh()

    @property
    def total(self) -> int:
        """Flips listed."""
        return len(self.flips)

    def shared(self) -> Shared | None:
        """The flips listed."""
        flips = self.flips

        def rows() -> Rows:
            yield ("position", "token", "site", "margin", "lost", "gained", "same_token")
            for flip in flips:
                lost, gained = (" ".join(map(str, experts)) for experts in (flip.lost, flip.gained))
                yield (flip.position, flip.text, flip.site, flip.margin, lost, gained, flip.same_token)

        return "moetui-flips", rows

    def header(self, width: int) -> Line:
        """What the columns are."""
        line = (
            Line()
            .add(fit("#", 6, "right") + "  ", self.pen("head"))
            .add(fit("token", self._text(width)), self.pen("head"))
        )
        return line.add(f" {fit('site', 7)}{fit('margin', 6, 'right')}  lost        gained", self.pen("head"))

    def draw_row(self, row: int, width: int, *, selected: bool) -> Line:
        """A flip."""
        flip, glyphs = self.flips[row], self.ink.glyphs
        plain, dim = self.row_pen("", selected), self.row_pen("dim", selected)
        line = Line().add(glyphs.selected if selected else " ", self.row_pen("accent", selected))
        line.add(fit(str(flip.position), 5, "right"), dim).add("  ", plain)
        text = drawable(flip.text, spaces=True) or "‹›"
        # Dim where the input differs, because then everything may.
        line.add(fit(text, self._text(width), ellipsis=glyphs.ellipsis), plain if flip.same_token else dim)
        line.add(" " + fit(drawable(flip.site), 7, ellipsis=glyphs.ellipsis), self.row_pen("head", selected))
        margin = glyphs.dash if flip.margin is None else number(flip.margin)
        line.add(fit(margin, 6, "right") + "  ", self.row_pen("strong", selected))
        start = line.width
        for experts in (flip.lost, flip.gained):
            for expert in experts:
                line.add(f"E{expert} ", self.expert_pen(expert, selected))
            if not experts:
                line.add(glyphs.dash, dim)
            start += 12
            line.to(start, plain)
        return line

    def _text(self, width: int) -> int:
        return max(4, min(_TEXT, width - 8 - 8 - 6 - 2 - 22))
