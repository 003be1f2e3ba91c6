"""A decision and its account as JSON: what would be done with a request for a model, and why."""

from typing import Any, assert_never

from cortex_router import Await, Decision, FleetView, Load, Policy, Refuse, RouteRequest, Serve
from cortex_router import decide as decide_now


def explanation(
    view: FleetView, request: RouteRequest, policy: Policy, now: float
) -> dict[str, Any]:
    """Return what `GET /fleet/explain` answers. Nothing is done."""
    decision = decide_now(view, request, policy, now)
    return {
        "model": request.model,
        "resolved": view.resolve(request.model),
        "now": now,
        "decision": _decision(decision),
        "sentence": sentence(decision),
        "considered": [
            {
                "node": one.node,
                "kept": one.kept,
                "reason": one.reason,
                "detail": one.detail,
                "score": list(one.score),
            }
            for one in decision.explanation.considered
        ],
    }


def sentence(decision: Decision) -> str:
    """Return the decision in words."""
    match decision:
        case Serve(node=node, reason="session"):
            return f"{node} serves it: the conversation's cache is there"
        case Serve(node=node, reason="last_resort"):
            return f"{node} serves it, though it was to be spared: there is nobody else"
        case Serve(node=node):
            return f"{node} serves it: it is loaded there and comes first among those that have it"
        case Await(node=node, reason=reason, eta_secs=eta):
            when = "" if eta is None else f", about {eta:.0f} s from now"
            return f"it waits for {node} ({reason}){when}"
        case Load(node=node, devices=devices, evict=evict, once_idle=later):
            where = f"it is loaded on {node}, devices {', '.join(map(str, devices))}"
            leaving = [f"{victim.model} leaves ({victim.reason})" for victim in (*evict, *later)]
            return "; ".join([where, *leaving])
        case Refuse(detail=detail, status=status):
            return f"it is refused with {status}: {detail}"
        case never:
            assert_never(never)


def _decision(decision: Decision) -> dict[str, Any]:
    match decision:
        case Serve(node=node, reason=reason, saturated=saturated):
            return {"kind": "serve", "node": node, "reason": reason, "saturated": saturated}
        case Await(node=node, reason=reason, eta_secs=eta):
            known = {} if eta is None else {"eta_secs": eta}
            return {"kind": "await", "node": node, "reason": reason, **known}
        case Load():
            return {
                "kind": "load",
                "node": decision.node,
                "devices": list(decision.devices),
                "evict": [_victim(one.model, one.reason) for one in decision.evict],
                "once_idle": [_victim(one.model, one.reason) for one in decision.once_idle],
            }
        case Refuse():
            later = decision.retry_after_secs
            known = {} if later is None else {"retry_after_secs": later}
            return {
                "kind": "refuse",
                "code": decision.code,
                "status": decision.status,
                "detail": decision.detail,
                **known,
            }
        case never:
            assert_never(never)


def _victim(model: str, reason: str) -> dict[str, str]:
    return {"model": model, "reason": reason}
