"""What commands may need of a session."""

from __future__ import annotations

from moetui.console.registry import Need
from moetui.session import (
    Analysing,
    Branching,
    Breakable,
    Capability,
    Filing,
    Playable,
    Pluggable,
    Rewindable,
    Sendable,
)

_LIVE = "'moetui run MODEL' opens a model"

GENERATE = Need("generate", Capability.GENERATE, instead=_LIVE)
STEP = Need("be stepped", Capability.STEP)
STEP_LAYER = Need("be stepped by layers", Capability.STEP_LAYER, instead=_LIVE)
SEND = Need("be sent to a place of its run", protocol=Sendable, instead="'seek' moves a recording")
INTERVENE = Need("change the routing", Capability.INTERVENE, instead=_LIVE)
GO_BACK = Need("go back to an earlier token", Capability.SEEK, Rewindable, "'generate' runs a prompt again")
REWIND = Need("branch off at an earlier token", protocol=Rewindable, instead=_LIVE)
BRANCH = Need("change its branches", protocol=Branching, instead="'branches' shows them")
SEEK = Need("be moved to another place", Capability.SEEK, instead="'moetui replay TRACE' opens a recording")
MARKS = Need("jump to what happened", protocol=Playable, instead="'find' looks for tokens")
BREAK = Need("stop at breakpoints", protocol=Breakable, instead="'find' looks for the condition afterwards")
ANALYZE = Need("analyse its model", protocol=Analysing, instead=_LIVE)
FILES = Need("read and write files", protocol=Filing, instead="see 'moetui record' and 'moetui export'")
PLUGINS = Need("ask what plugins added", protocol=Pluggable, instead=_LIVE)
