"""What a person takes along: the screen as a picture, and what has the focus as rows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from moetui.routing import drawable
from moetui.tui.options import Look
from moetui.tui.widgets.sharing import CLIPBOARD_BYTES, Shared, copy, nearest_shared, not_written, save, write_new

if TYPE_CHECKING:
    from textual.app import App

    _Base = App[int]
else:
    _Base = object


class HandingOn(_Base):
    """Mixed into an app, whose bindings name the actions; ``look`` is the app's."""

    look: Look

    def shared_part(self) -> Shared | None:
        """The rows of what has the focus, or of what is around it; None where there are none."""
        return nearest_shared(self.screen.focused)

    async def action_copy(self) -> None:
        """Copy what has the focus: rows of a table, cells of a heatmap, facts."""
        found = self.shared_part()
        if found is None:
            self._say_nothing_there()
        else:
            await copy(self, *found, most=CLIPBOARD_BYTES if self.look.clipboard else 0, tmux=self.look.tmux)

    async def action_save_csv(self) -> None:
        """Write the same to a CSV file."""
        found = self.shared_part()
        if found is None:
            self._say_nothing_there()
        else:
            await save(self, *found)

    def _say_nothing_there(self) -> None:
        self.notify("nothing to copy here yet", markup=False)

    async def action_picture(self) -> None:
        """Write what is on the screen to an SVG file in the working folder, and say where."""
        from moetui.tui.svg import self_contained

        svg = self.export_screenshot(title="moetui")
        try:
            path = await asyncio.to_thread(lambda: write_new(Path.cwd(), "moetui-screen", ".svg", self_contained(svg)))
        except OSError as error:
            not_written(self, error)
            return
        self.notify(f"the screen is in {drawable(path.name)}", markup=False)
