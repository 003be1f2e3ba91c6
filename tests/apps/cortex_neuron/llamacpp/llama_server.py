"""A `llama-server` for tests: the options of the real one, and the bindings' server behind them.

An option that the real one does not have ends it, as it ends the real one.
"""

import argparse
import os
import threading
from typing import Any

import xllamacpp


def options() -> argparse.ArgumentParser:
    """Return the options of llama.cpp's server (11434) that a harness may want."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--model", "--alias", "--host", "--cache-type-k", "--cache-type-v"):
        parser.add_argument(name, required=True)
    for name in (
        *("--port", "--ctx-size", "--parallel", "--batch-size", "--ubatch-size", "--gpu-layers"),
        *("--threads", "--threads-batch", "--threads-http", "--cache-ram", "--log-verbosity"),
    ):
        parser.add_argument(name, required=True, type=int)
    parser.add_argument("--pooling", choices=("none", "mean", "cls", "last", "rank"))
    parser.add_argument("--fit", choices=("on", "off"), default="on")
    for name in (
        *("--jinja", "--slots", "--offline", "--no-webui", "--kv-unified", "--embedding"),
        *("--no-warmup", "--no-repack"),
    ):
        parser.add_argument(name, action="store_true")
    return parser


def serve(given: argparse.Namespace, key: str) -> None:
    """Run the model, until somebody ends the process."""
    kinds: Any = {kind.name.lower(): kind for kind in xllamacpp.ggml_type}
    parameters = xllamacpp.CommonParams()
    parameters.model.path = given.model
    parameters.model_alias = {given.alias}
    parameters.hostnames = [given.host]
    parameters.port = given.port
    parameters.n_ctx = given.ctx_size
    parameters.n_parallel = given.parallel
    parameters.kv_unified = given.kv_unified
    parameters.n_batch = given.batch_size
    parameters.n_ubatch = given.ubatch_size
    parameters.n_gpu_layers = given.gpu_layers
    parameters.cpuparams.n_threads = given.threads
    parameters.cpuparams_batch.n_threads = given.threads_batch
    parameters.n_threads_http = given.threads_http
    parameters.cache_type_k = kinds[f"ggml_type_{given.cache_type_k}"]
    parameters.cache_type_v = kinds[f"ggml_type_{given.cache_type_v}"]
    parameters.cache_ram_mib = given.cache_ram
    parameters.fit_params = given.fit == "on"
    parameters.warmup = not given.no_warmup
    parameters.no_extra_bufts = given.no_repack
    parameters.embedding = given.embedding
    if given.pooling:
        pooling: Any = {kind.name.lower(): kind for kind in xllamacpp.llama_pooling_type}
        parameters.pooling_type = pooling[f"llama_pooling_type_{given.pooling}"]
    parameters.endpoint_slots = given.slots
    parameters.ui = not given.no_webui
    parameters.verbosity = given.log_verbosity
    parameters.api_keys = [key]
    server = xllamacpp.Server(parameters)
    threading.Event().wait()
    del server


if __name__ == "__main__":
    serve(options().parse_args(), os.environ["LLAMA_API_KEY"])
