"""Changes a routing where the experts receive it: checked beforehand, by the model's own rules, in order."""

from __future__ import annotations

from moetui.engine.interventions.chooser import Rule
from moetui.engine.interventions.plan import Plan, plan
from moetui.engine.interventions.recorded import recorded_routing
from moetui.engine.interventions.site_function import Recorded
from moetui.engine.interventions.support import check, refusal

__all__ = ["Plan", "Recorded", "Rule", "check", "plan", "recorded_routing", "refusal"]
