"""The `openai` harness: servers that are there already, whose models this node offers as its own.

vLLM, SGLang, llama-server or whatever else speaks OpenAI. A server is watched and used, and never
started or stopped.
"""

from cortex_neuron.attached.attachments import HARNESS, Attachments

__all__ = ["HARNESS", "Attachments"]
