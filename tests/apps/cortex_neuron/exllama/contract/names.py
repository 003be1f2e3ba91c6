"""What of each library its adapter may use, and the committed tables of that.

`python -m tests.apps.cortex_neuron.exllama.contract.names FOLDER…` writes the tables of packages
anew, each from its folder. The suite of the real exllamav2 proves that its table is still true.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.apps.cortex_neuron.exllama.contract.table import Source, Table

NAMES: Final = {
    "exllamav2": (
        "exllamav2.ExLlamaV2",
        "exllamav2.ExLlamaV2Cache",
        "exllamav2.ExLlamaV2Cache_Q4",
        "exllamav2.ExLlamaV2Cache_Q6",
        "exllamav2.ExLlamaV2Cache_Q8",
        "exllamav2.ExLlamaV2Cache_TP",
        "exllamav2.ExLlamaV2Config",
        "exllamav2.ExLlamaV2Lora",
        "exllamav2.ExLlamaV2Tokenizer",
        "exllamav2.attn.has_flash_attn_with_paged",
        "exllamav2.generator.ExLlamaV2DynamicGenerator",
        "exllamav2.generator.ExLlamaV2DynamicJob",
        "exllamav2.generator.ExLlamaV2Sampler",
        "exllamav2.generator.filters.ExLlamaV2Filter",
    ),
    "exllamav3": (
        "exllamav3.Cache",
        "exllamav3.CacheLayer_fp16",
        "exllamav3.CacheLayer_quant",
        "exllamav3.Config",
        "exllamav3.CustomSampler",
        "exllamav3.Filter",
        "exllamav3.Generator",
        "exllamav3.Job",
        "exllamav3.Model",
        "exllamav3.SS_Argmax",
        "exllamav3.SS_Base",
        "exllamav3.SS_DRY",
        "exllamav3.SS_LogitBias",
        "exllamav3.SS_MinP",
        "exllamav3.SS_PresFreqP",
        "exllamav3.SS_RepP",
        "exllamav3.SS_Sample",
        "exllamav3.SS_Temperature",
        "exllamav3.SS_TopK",
        "exllamav3.SS_TopP",
        "exllamav3.SS_XTC",
        "exllamav3.Tokenizer",
        "exllamav3.model.lora.LoRA",
    ),
}


#: What gives the rest of its parameters to another.
_FORWARDS: Final = {
    "exllamav3.Cache": "exllamav3.CacheLayer_quant",
    "exllamav3.Model.load": "exllamav3.Model.load_gen",
}


def table_of(folder: Path) -> Table:
    """Return the table of the package in a folder."""
    table = Source(folder).table(NAMES[folder.name])
    for name, other in _FORWARDS.items():
        if name in table.calls and other in table.calls:
            own = {one.rstrip("=") for one in table.calls[name]}
            passed = (one.rstrip("=") for one in table.calls[other])
            table.calls[name] += [f"{one}=" for one in passed if one not in own]
    return table


def committed(library: str) -> Table:
    """Return the table in the repository."""
    return Table(**json.loads(_path(library).read_text()))


def main() -> None:
    """Write the tables."""
    for folder in map(Path, sys.argv[1:]):
        table = asdict(table_of(folder))
        parts = [f"{json.dumps(part)}: {_written(said)}" for part, said in sorted(table.items())]
        _path(folder.name).write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _path(library: str) -> Path:
    return Path(__file__).with_name(f"{library}.json")


def _written(part: dict[str, list[str]] | list[str]) -> str:
    """Return a part as JSON, with a line for each name."""
    if isinstance(part, list):
        return json.dumps(part)
    rows = [f" {json.dumps(name)}: {json.dumps(part[name])}" for name in sorted(part)]
    return "{\n" + ",\n".join(rows) + "\n}"


if __name__ == "__main__":
    main()
