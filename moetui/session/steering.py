"""The run control of a live session: commands to the thread that runs the model, from any other."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.engine.control import Gate
from moetui.routing import UnsupportedError
from moetui.routing.branches import BranchTree
from moetui.routing.events import Branch, GenerationSettings
from moetui.routing.interventions import Intervention
from moetui.session.offers import Underway
from moetui.session.worker import Worker


class Steering:
    """What a live session has of ``Session`` and of what one may offer besides, but for breakpoints and files."""

    _gate: Gate
    _worker: Worker

    def generate(self, prompt: str, settings: GenerationSettings | None = None) -> None:
        """Start a run.

        Raises:
            UsageError: the model is not loaded, a run is going on, or the prompt or a setting will not do.
        """
        self._worker.begin(prompt, settings or self._worker.settings)

    def restart(self) -> None:
        """Run the last prompt again with its settings; a run that is going on is stopped first.

        Raises:
            UsageError: nothing has run yet.
        """
        self._worker.started().restart()

    def pause(self) -> None:
        """Stop before the next step. No effect when not running."""
        self._gate.pause()

    def resume(self) -> None:
        """Go on."""
        self._gate.resume()

    def finish(self) -> None:
        """Go on to the run's end, past every breakpoint."""
        self._gate.finish()

    def step(self, count: int = 1) -> None:
        """Let ``count`` steps pass and pause again; while the run is still stepping, behind what was asked for before.

        So keys that come in a burst are done one by one, in order. A breakpoint, a pause, any other command and the
        run's end end what is left of them: nobody steps on from a stop by keys that were pressed before it was seen.

        Raises:
            UnsupportedError: a negative count: a model does not run backwards.
        """
        if count < 0:
            raise UnsupportedError("a live model does not step back", "replay a recording of it")
        self._gate.step(count)

    def step_layer(self) -> None:
        """Go on to the next site and pause there, before its experts run; while still stepping, as ``step`` does."""
        self._worker.watch_sites()
        self._gate.step_site()

    def run_to(self, position: int) -> None:
        """Go on until the token at this sequence position is next."""
        self._gate.run_to(position)

    def rewind(self, token: int) -> None:
        """Stand paused right before timeline token ``token`` goes through the model, on a branch of its own.

        A token of the prompt takes the whole prompt with it, as both went through in one step. What the model did
        before is kept or repeated exactly as it was; only from ``token`` on the interventions now in force act. An
        unchanged run goes on bit for bit as it did, drawn tokens included; where it cannot, a ``Notice`` says so.

        Raises:
            UsageError: a token that is not held, that is no token of the decoder, or that no run here wrote.
            UnsupportedError: a model whose state cannot be taken back; the message says why.
        """
        self._worker.started().rewind(token)

    def fork(
        self, token: int, settings: GenerationSettings | None = None, name: str = "", *, paused: bool = False
    ) -> None:
        """Start a branch that shares all before timeline token ``token`` and runs on from there.

        Args:
            token: the first token that the branch runs through the model itself.
            settings: None for those of the run it leaves; their length counts from the prompt.
            name: as shown and typed; empty for one of the session's choice.
            paused: stand before that token instead of running on.

        Raises:
            UsageError: as for ``rewind``, a name that is taken, or settings that leave the branch nothing to write.
            UnsupportedError: as for ``rewind``.
        """
        self._worker.started().fork(token, settings, name, paused=paused)

    def stop(self) -> None:
        """End the run; what was generated stays."""
        self._gate.stop()

    @property
    def tree(self) -> BranchTree:
        """Runs and the branches forked from them, and the one that the session stands on."""
        return self._worker.tree

    def last_text(self, branch: int) -> str:
        """The text of the token that a branch wrote last; empty while it runs, and where it ended its text."""
        runs = self._worker.runs
        return "" if runs is None else runs.lineage.last_text(branch)

    @property
    def underway(self) -> Underway | None:
        """The step that the run stands within, with its routing so far; None while it does not."""
        return self._worker.underway

    @property
    def branches(self) -> Sequence[Branch]:
        """Runs and forks so far, but for those that were deleted."""
        return self._worker.tree.branches

    def switch_branch(self, branch: int) -> None:
        """Stand paused where this branch was left, whatever runs now; going on continues it exactly.

        Tokens that follow are written onto the branch itself, under the interventions in force then. Where it has
        come to its end the session stands there, finished.

        Raises:
            UsageError: there is no such branch, or a run is about to stop.
            UnsupportedError: a model whose runs cannot go on from their middle.
        """
        self._worker.started().switch(branch)

    def rename_branch(self, branch: int, name: str) -> None:
        """Give a branch another name.

        Raises:
            UsageError: there is no such branch, or the name will not do or is taken.
        """
        self._worker.started().rename(branch, name)

    def promote_branch(self, branch: int) -> None:
        """Make a branch the main one of its run: others of the run are compared with it, and listed below it.

        Raises:
            UsageError: there is no such branch.
        """
        self._worker.started().promote(branch)

    def delete_branch(self, branch: int) -> None:
        """Take a branch out of the tree and free what it keeps for going back.

        Its tokens are in the timeline no more, but for those that branches forked from it share; these stay. A
        recording and ``save`` keep what was written, with the event; who reads them passes over it (``kept``).

        Raises:
            UsageError: there is no such branch, or the session stands on it.
        """
        self._worker.started().delete(branch)

    def seek(self, token: int) -> None:
        """Not for a live session.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(f"a live model cannot be moved to token {token}", "replay a recording of it")

    def set_speed(self, speed: float) -> None:
        """Not for a live session.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(f"a live model runs at its own speed, not at {speed}", "pause and step it")

    def set_loop(self, tokens: tuple[int, int] | None) -> None:
        """Not for a live session.

        Raises:
            UnsupportedError: for any range.
        """
        if tokens is not None:
            raise UnsupportedError("a live model does not repeat tokens", "replay a recording of it")

    def configure(self, settings: GenerationSettings) -> None:
        """Let ``settings`` be those of the next run that names none.

        Raises:
            UsageError: a value outside its range.
        """
        self._worker.configure(settings)

    def set_interventions(self, interventions: Sequence[Intervention]) -> None:
        """Replace the interventions in force, from the next step on; between two sites, from the next site on.

        Raises:
            UsageError: an expert, layer or site that the model has not; or the model is not loaded yet.
            UnsupportedError: an architecture that cannot do it; the message says why.
        """
        self._worker.set_interventions(tuple(interventions))
