"""Default models: loaded one after another once the listener is up, retried while it can help."""

import asyncio

import structlog

from cortex_core.errors import ApiError, PreflightFailed
from cortex_core.wire import Activation, FailedActivation, LoadRequest
from cortex_neuron.registry import Registry

log = structlog.get_logger()

RETRY_AFTER_SECS = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
_TRANSIENT_KINDS = frozenset({"fetch_failed", "no_space"})


class Activator:
    """Brings the default models up and says how far it is."""

    def __init__(self, registry: Registry, models: tuple[LoadRequest, ...]) -> None:
        self._registry = registry
        self._models = models
        self._pending = [model.model_id for model in models]
        self._in_progress: str | None = None
        self._completed: list[str] = []
        self._failed: list[FailedActivation] = []

    def report(self) -> Activation:
        """Return the `activation` part of `/health`."""
        warming = bool(self._pending or self._in_progress)
        return Activation(
            state="pre_warming" if warming else "ready",
            pending=tuple(self._pending),
            in_progress=self._in_progress,
            completed=tuple(self._completed),
            failed=tuple(self._failed),
        )

    async def run(self) -> None:
        """Load each model; what fails for a passing reason is tried again later."""
        waiting = list(self._models)
        for pause in (*RETRY_AFTER_SECS, None):
            again: list[LoadRequest] = []
            for request in waiting:
                error = await self._load(request)
                if error is not None and pause is not None and _is_transient(error):
                    self._pending.append(request.model_id)
                    again.append(request)
                elif error is not None:
                    self._failed.append(
                        FailedActivation(model_id=request.model_id, error=error.message)
                    )
            if not again or pause is None:
                return
            waiting = again
            await asyncio.sleep(pause)

    async def _load(self, request: LoadRequest) -> ApiError | None:
        self._pending.remove(request.model_id)
        self._in_progress = request.model_id
        try:
            await self._registry.load(request.model_copy(update={"wait": True}))
        except ApiError as error:
            log.warning("default_model.failed", model=request.model_id, error=error.message)
            return error
        finally:
            self._in_progress = None
        self._completed.append(request.model_id)
        return None


def _is_transient(error: ApiError) -> bool:
    if isinstance(error, PreflightFailed):
        return error.kind in _TRANSIENT_KINDS
    return error.retry_after_secs is not None
