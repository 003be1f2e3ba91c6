"""Lay a model out as exllamav2 will: a list of modules with what each puts on its device. Pure.

The sums follow exllamav2 0.3.2: `footprint` is what it reckons with when it splits a model by
hand, `loaded` is what it allocates. They differ where it rounds, converts or leaves something out:
rows are padded to 32, 32-bit floats become 16-bit, a quantised matrix gets its permutations and
group map, and a norm of heads is repeated for each head.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cortex_neuron.exllama.safetensors_headers import Tensor
from cortex_neuron.exllama.shape import Quantisation, Shape, Unfit

Kind: TypeAlias = Literal["embedding", "positions", "attention", "mlp", "block", "norm", "head"]

#: What exllamav2's loader knows.
_DTYPES = frozenset({"F16", "BF16", "F32", "I16", "I32"})
_FLOATS = frozenset({"F16", "BF16", "F32"})
_EXL2 = ("q_weight", "q_invperm", "q_scale", "q_scale_max", "q_groups", "bias")
_GPTQ = ("qweight", "qzeros", "scales", "g_idx", "bias")


@dataclass(frozen=True, slots=True)
class Matrix:
    """One linear layer. `divided` of its `loaded` bytes can be split over devices."""

    inputs: int
    outputs: int
    loaded: int
    footprint: int
    divided: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One step of the model. `matrices` are query, key, value, output; or (gate,) up, down."""

    kind: Kind
    loaded: int
    footprint: int
    matrices: tuple[Matrix, ...] = ()
    norms: int = 0

    @property
    def keeps_cache(self) -> bool:
        """Whether a layer of the cache lies with it."""
        return self.kind in ("attention", "block")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A whole model. `quantised`: its matrices have the scratch space of quantised kernels."""

    shape: Shape
    modules: tuple[Module, ...]
    method: str

    @property
    def quantised(self) -> bool:
        """Whether the kernels of EXL2 and GPTQ work on it."""
        return self.method != "none"

    @property
    def indivisible(self) -> str | None:
        """Why its layers cannot be split over devices (tensor parallel), None when they can."""
        shape = self.shape
        if not shape.architecture.tensor_parallel:
            return f"exllamav2 does not split {shape.architecture.name}"
        if self.method != "exl2":
            return "exllamav2 splits EXL2 weights only"
        if shape.intermediate % 128:
            return f"an inner state of {shape.intermediate} is no multiple of 128"
        # The output projection is cut like the query's columns.
        if shape.heads * shape.head_dim != shape.hidden:
            return "its heads together are not as wide as its hidden state"
        return None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights on devices."""
        return sum(one.loaded for one in self.modules if one.kind != "embedding")

    @property
    def host_bytes(self) -> int:
        """Bytes of the weights that stay in the machine's memory."""
        return sum(one.loaded for one in self.modules if one.kind == "embedding")


def lay_out(shape: Shape, tensors: Mapping[str, Tensor], quantisation: Quantisation) -> Layout:
    """Return the modules of a model. Raises Unfit for tensors that are missing or unreadable."""
    architecture = shape.architecture
    renamed = {architecture.rename(name): tensor for name, tensor in tensors.items()}
    maker = _Maker(shape, renamed, quantisation)
    modules = tuple(maker.modules())
    methods = {matrix.method for one in modules for matrix in _body(one, shape)}
    if len(methods) > 1:
        raise Unfit("unsupported_quant", "some of the layers are quantised and some are not")
    method = methods.pop()
    if quantisation.method not in ("none", method):
        held = "16-bit" if method == "none" else method.upper()
        raise Unfit(
            "corrupt",
            f"config.json says {quantisation.method.upper()}, but the files hold {held} weights",
        )
    return Layout(shape=shape, modules=modules, method=method)


def _body(module: Module, shape: Shape) -> Sequence[Matrix]:
    """Return the matrices that a quantisation must cover: no head, and no router of experts."""
    if module.kind == "head":
        return ()
    routed = module.kind == "mlp" and shape.experts
    return module.matrices[:-1] if routed else module.matrices


class _Maker:
    """Finds the tensors of one module after the other."""

    def __init__(
        self, shape: Shape, tensors: Mapping[str, Tensor], quantisation: Quantisation
    ) -> None:
        self._shape, self._tensors = shape, tensors
        self._reordered = quantisation.reordered
        self._top = f"{shape.architecture.prefix}model."

    def modules(self) -> Iterator[Module]:
        shape, architecture = self._shape, self._shape.architecture
        embedding = self._floats(f"{self._top}embed_tokens.weight")
        yield Module(
            kind="embedding", loaded=embedding, footprint=shape.vocabulary * shape.hidden * 2
        )
        if architecture.positions is not None:
            size = self._floats(f"{architecture.positions}.weight")
            yield Module(kind="positions", loaded=size, footprint=size)
        for layer in range(shape.layers):
            at = f"{self._top}layers.{layer}."
            attention, mlp = self._attention(at), self._mlp(at)
            if architecture.parallel_blocks:
                yield Module(
                    kind="block",
                    loaded=attention.loaded + mlp.loaded,
                    footprint=attention.footprint + mlp.footprint,
                    matrices=(*attention.matrices, *mlp.matrices),
                    norms=attention.norms,
                )
            else:
                yield attention
                yield mlp
        norm = self._norm((f"{self._top}norm",))
        yield Module(kind="norm", loaded=norm, footprint=shape.hidden * 2, norms=norm)
        head = self._head()
        yield Module(kind="head", loaded=head.loaded, footprint=head.footprint, matrices=(head,))

    def _attention(self, at: str) -> Module:
        shape, names = self._shape, self._shape.architecture.attention
        wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        sizes = ((shape.hidden, wide), (shape.hidden, narrow), (shape.hidden, narrow))
        matrices = [
            self._matrix([at + name for name in alternatives], *size)
            for alternatives, size in zip(names, (*sizes, (wide, shape.hidden)), strict=True)
        ]
        norms = [self._norm([at + one for one in n]) for n in shape.architecture.attention_norms]
        if shape.query_key_norm:
            norms += [
                self._norm((f"{at}self_attn.{which}_norm",), heads)
                for which, heads in (("q", shape.heads), ("k", shape.kv_heads))
            ]
        return self._module("attention", matrices, norms)

    def _mlp(self, at: str) -> Module:
        shape, architecture = self._shape, self._shape.architecture
        inner, hidden = shape.intermediate, shape.hidden
        inward, outward = (hidden, inner), (inner, hidden)
        norms = [self._norm([at + one for one in names]) for names in architecture.mlp_norms]
        if architecture.experts:
            *each, gate = architecture.mlp
            matrices = [
                self._matrix(
                    [at + name.replace("*", str(expert)) for name in names],
                    *size,
                    shared=shape.experts,
                )
                for expert in range(shape.experts)
                for names, size in zip(each, (inward, inward, outward), strict=True)
            ]
            matrices.append(self._matrix([at + gate[0]], hidden, shape.experts, pad=False))
            return self._module("mlp", matrices, norms)
        fused = architecture.fused_mlp
        sizes = (inward, inward, outward) if architecture.gated else (inward, outward)
        matrices = [
            self._matrix(
                [*([at + fused] if fused and size == inward and not last else ()), at + names[0]],
                *size,
                permuted=not last,
            )
            for names, size, last in zip(
                architecture.mlp,
                sizes,
                (*([False] * (len(sizes) - 1)), True),
                strict=True,
            )
        ]
        return self._module("mlp", matrices, norms)

    def _module(self, kind: Kind, matrices: Sequence[Matrix], norms: Sequence[int]) -> Module:
        return Module(
            kind=kind,
            loaded=sum(one.loaded for one in matrices) + sum(norms),
            footprint=sum(one.footprint for one in matrices) + len(norms) * self._shape.hidden * 2,
            matrices=tuple(matrices),
            norms=sum(norms),
        )

    def _head(self) -> Matrix:
        prefix, shape = self._shape.architecture.prefix, self._shape
        names = [f"{prefix}lm_head", *([f"{self._top}embed_tokens"] if shape.tied else [])]
        return self._matrix(names, shape.hidden, shape.vocabulary)

    def _norm(self, names: Sequence[str], heads: int | None = None) -> int:
        """Return the bytes of a norm and its bias; `heads`: once for each of them."""
        name = next((one for one in names if f"{one}.weight" in self._tensors), names[0])
        weight = self._floats(f"{name}.weight")
        bias = self._floats(f"{name}.bias") if f"{name}.bias" in self._tensors else 0
        if heads is None:
            return weight + bias
        one_head = self._shape.head_dim * 2
        return sum(size * (heads if size == one_head else 1) for size in (weight, bias) if size)

    def _matrix(
        self,
        names: Sequence[str],
        inputs: int,
        outputs: int,
        *,
        pad: bool = True,
        permuted: bool = True,
        shared: int = 1,
    ) -> Matrix:
        """Return the first of `names` that is there; one name may hold several matrices.

        `permuted`: it keeps its permutation. `shared`: so many experts may lie in one tensor.
        """
        padded = -(-outputs // 32) * 32 if pad else outputs
        for name in names:
            if f"{name}.q_weight" in self._tensors:
                return self._exl2(name, inputs, padded, permuted=permuted)
            if f"{name}.qweight" in self._tensors:
                return self._gptq(name, inputs, padded)
            weight = self._tensors.get(f"{name}.weight") or self._tensors.get(name)
            if weight is None:
                continue
            self._check(name, weight, _FLOATS)
            self._check_size(name, weight, inputs, outputs, shared)
            bias = outputs * 2 if f"{name}.bias" in self._tensors else 0
            alone = weight.elements == inputs * outputs
            loaded = inputs * padded * 2 + (padded * 2 if bias else 0)
            stored = weight.bytes + (self._tensors[f"{name}.bias"].bytes if bias else 0)
            # Part of a fused tensor: exllamav2 does not look it up when it reckons.
            footprint = stored if alone else inputs * padded * 2 + 128
            return Matrix(inputs, padded, loaded, footprint, loaded, "none")
        raise Unfit(
            "corrupt",
            f"the weights are not complete: {names[-1]!r} is in no file; fetch the model again",
            tensor=names[-1],
        )

    def _exl2(self, name: str, inputs: int, outputs: int, *, permuted: bool) -> Matrix:
        parts = self._parts(name, _EXL2)
        order = parts.get("q_invperm")
        if parts["q_weight"].shape[-1:] != (outputs,) or (order and order.elements != inputs):
            raise _misshapen(f"{name}.q_weight", parts["q_weight"], inputs, outputs)
        stored = sum(tensor.bytes for tensor in parts.values())
        divided = sum(parts[key].bytes for key in ("q_weight", "q_scale", "bias") if key in parts)
        whole = sum(parts[key].bytes for key in ("q_scale_max", "q_groups") if key in parts)
        group_map = 4 * inputs
        orders = 4 * inputs if permuted and "q_invperm" in parts else 0
        loaded = divided + whole + group_map + orders
        return Matrix(inputs, outputs, loaded, stored, divided, "exl2")

    def _gptq(self, name: str, inputs: int, outputs: int) -> Matrix:
        parts = self._parts(name, _GPTQ)
        if parts["qweight"].elements * 8 != inputs * outputs:
            raise _misshapen(f"{name}.qweight", parts["qweight"], inputs, outputs)
        stored = sum(tensor.bytes for tensor in parts.values())
        halved = parts["scales"].elements * 2 - parts["scales"].bytes if "scales" in parts else 0
        orders = 4 * inputs if "g_idx" in parts and self._reordered else 0
        loaded = stored + halved + orders
        return Matrix(inputs, outputs, loaded, stored, loaded, "gptq")

    def _parts(self, name: str, keys: Sequence[str]) -> Mapping[str, Tensor]:
        found = {
            key: self._tensors[f"{name}.{key}"] for key in keys if f"{name}.{key}" in self._tensors
        }
        needed = [key for key in keys if key not in ("bias", "g_idx", "q_invperm")]
        if lacking := [key for key in needed if key not in found]:
            raise Unfit(
                "corrupt",
                f"the weights are not complete: '{name}.{lacking[0]}' is in no file; "
                "fetch the model again",
                tensor=f"{name}.{lacking[0]}",
            )
        for key, tensor in found.items():
            self._check(f"{name}.{key}", tensor, _DTYPES)
        return found

    def _floats(self, name: str) -> int:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise Unfit(
                "corrupt",
                f"the weights are not complete: {name!r} is in no file; fetch the model again",
                tensor=name,
            )
        self._check(name, tensor, _FLOATS)
        return tensor.elements * 2

    def _check(self, name: str, tensor: Tensor, known: frozenset[str]) -> None:
        if tensor.dtype not in known:
            raise Unfit(
                "unsupported_quant",
                f"{name!r} is of the type {tensor.dtype}; exllamav2 reads EXL2, GPTQ of 4 bits and "
                "16-bit weights",
                dtype=tensor.dtype,
            )

    def _check_size(
        self, name: str, weight: Tensor, inputs: int, outputs: int, shared: int
    ) -> None:
        """Raise Unfit when a tensor cannot hold the matrix that config.json wants of it."""
        rows = weight.elements // inputs
        if weight.elements % inputs or rows < outputs or (shared == 1 and len(weight.shape) > 2):  # noqa: PLR2004
            raise _misshapen(name, weight, inputs, outputs)


def _misshapen(name: str, tensor: Tensor, inputs: int, outputs: int) -> Unfit:
    return Unfit(
        "corrupt",
        f"{name!r} has the shape {list(tensor.shape)}, where config.json wants a matrix of "
        f"{inputs} × {outputs}",
        tensor=name,
    )
