"""A QAT of PyTorch as an ONNX file: the same integers, and the outputs of PyTorch's own conversion."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quantbench.backend_api import FINETUNED, Artifact, backend, integer_macs_fraction
from quantbench.spec import Model
from quantbench.system import locate
from quantbench_backends.onnxruntime import qdq_constants
from quantbench_backends.onnxruntime.runtime import OnnxRuntime
from tests.backends.conformance import CPU, build, method_of, outputs_of, with_form
from tests.backends.samples import SAMPLES

BACKEND = backend("onnxruntime")
RESTORED = "quantbench_backends.pytorch.qat:restored"
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per"),
]


@pytest.fixture(scope="module", params=["residual", "pair"])
def trained(request, tmp_path_factory) -> tuple[str, Model, Artifact]:
    method = method_of(BACKEND, "qat-int8", {})
    folder = tmp_path_factory.mktemp("qat")
    model = with_form(BACKEND, SAMPLES[request.param].model, method, folder)
    (folder / "built").mkdir()
    return request.param, model, build(BACKEND, model, method, folder / "built")


def converted_by_torch(model: Model) -> torch.nn.Module:
    from torch.ao.quantization.quantize_fx import convert_to_reference_fx

    return convert_to_reference_fx(copy.deepcopy(locate(RESTORED)(model)))


def constants(artifact: Artifact) -> dict[str, np.ndarray]:
    graph = onnx.load(artifact.path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_weights_are_the_integers_of_pytorch_s_own_conversion(trained):
    _, model, artifact = trained
    stored = {n: a for n, a in constants(artifact).items() if n.endswith("_weight_quantized")}
    found = [
        module.get_quantized_weight()
        for module in converted_by_torch(model).modules()
        if hasattr(module, "get_quantized_weight")
    ]

    assert len(stored) == len(found) == 3
    for tensor in found:
        values = tensor.int_repr().numpy()
        name = next(n for n, a in stored.items() if np.array_equal(a, values))
        scale = constants(artifact)[name.replace("quantized", "scale")]
        np.testing.assert_array_equal(scale, tensor.q_per_channel_scales().numpy())


def test_outputs_are_pytorch_s_within_a_step_and_multiplied_as_integers(trained):
    sample, model, artifact = trained
    inputs = SAMPLES[sample].inputs(16)
    with torch.no_grad():
        expected = converted_by_torch(model)(*map(torch.from_numpy, inputs.values()))
    expected = expected if isinstance(expected, tuple) else (expected,)

    found = outputs_of(OnnxRuntime().load(artifact, CPU, 16), inputs)

    operations = OnnxRuntime().operations(artifact, CPU, SAMPLES[sample].inputs(1))
    assert integer_macs_fraction(operations) == 1
    for array, tensor in zip(found.values(), expected, strict=True):
        step = np.diff(np.unique(tensor.numpy())).min()
        steps = np.rint(np.abs(array - tensor.numpy()) / step)
        assert steps.max() <= 2  # one that was rounded otherwise before, and one now
        assert steps.mean() < 0.05


def test_activations_of_4_bits_are_clipped_to_them(tmp_path):
    method = method_of(BACKEND, "qat-int8", {"activations": "uint4"})
    model = with_form(BACKEND, SAMPLES["conv"].model, method, tmp_path)
    (tmp_path / "built").mkdir()
    artifact = build(BACKEND, model, method, tmp_path / "built")
    beyond = {name: 10 * array for name, array in SAMPLES["conv"].inputs(16).items()}

    found = outputs_of(OnnxRuntime().load(artifact, CPU, 16), beyond)["logits"]

    trained = locate(BACKEND.trainer)().outputs(model, method, beyond)["logits"]
    assert "4-bit" in artifact.details["simulated"]
    # two frameworks round a product of float32 differently: 1.1e-7 was seen; a range that was not
    # taken over differs by a step of 4 bits, a fifteenth
    np.testing.assert_allclose(
        [found.min(), found.max()], [trained.min(), trained.max()], rtol=1e-5
    )


def test_a_finetune_is_exported_with_its_own_weights(tmp_path):
    method = method_of(BACKEND, "fp32", {"training": "finetune", "learning_rate": 0.01})
    model = with_form(BACKEND, SAMPLES["conv"].model, method, tmp_path)

    kernel = locate("quantbench.backend_api.float_weights:state_of")(model)["second.weight"]

    (tmp_path / "built").mkdir()
    artifact = build(BACKEND, model, method, tmp_path / "built")
    assert (Path(model.trained) / FINETUNED).exists()
    np.testing.assert_array_equal(constants(artifact)["second.weight"], kernel)
    before = locate("quantbench.backend_api.float_weights:state_of")(
        dataclasses.replace(model, trained="")
    )
    assert not np.array_equal(before["second.weight"], kernel)


# --- integers in a graph --------------------------------------------------------------------------


def linear_of_three_axes() -> onnx.GraphProto:
    """x -> quantized to scale 0.5 -> MatMul with a transposed weight, and a Conv-like Gemm."""
    weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    nodes = [
        helper.make_node("Constant", [], ["s64"], value=helper.make_tensor("s", TensorProto.DOUBLE, [], [0.5])),
        helper.make_node("Cast", ["s64"], ["s"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["d", "wt"], ["m"], "product"),
        helper.make_node("Gemm", ["d", "w", "b"], ["y"], "gemm", transB=1),
    ]  # fmt: skip
    values = {"w": weight, "z": np.uint8(3), "b": np.array([1.0, -2.0, 0.26], np.float32)}
    return helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("m", "y")],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in values.items()],
    )  # fmt: skip


def test_weights_and_biases_become_integers_of_the_right_scales():
    graph = linear_of_three_axes()
    weight = qdq_constants.Weight(
        np.array([[1, 2], [3, 4], [5, 6]], np.int8),
        np.array([1.0, 1.0, 0.125], np.float32), np.zeros(3, np.int8), 0,
    )  # fmt: skip

    qdq_constants.store(graph, {"w": weight})

    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    np.testing.assert_array_equal(found["gemm_weight_quantized"], weight.values)
    np.testing.assert_array_equal(found["product_weight_quantized"], weight.values.T)
    np.testing.assert_array_equal(found["gemm_bias_scale"], [0.5, 0.5, 0.0625])
    np.testing.assert_array_equal(found["gemm_bias_quantized"], [2, -4, 4])
    assert found["gemm_bias_quantized"].dtype == np.int32
    axes = {n.name: n.attribute[0].i for n in graph.node if n.name.endswith("_DequantizeLinear")}
    assert axes == {
        "product_weight_DequantizeLinear": 1,
        "gemm_weight_DequantizeLinear": 0,
        "gemm_bias_DequantizeLinear": 0,
    }
    assert not {"w", "b"} & set(found)
    assert not {"Transpose", "Cast"} & {node.op_type for node in graph.node}


def test_a_bias_beyond_32_bits_is_clipped():
    graph = linear_of_three_axes()
    tiny = np.full(3, 1e-12, np.float32)
    weight = qdq_constants.Weight(np.ones((3, 2), np.int8), tiny, np.zeros(3, np.int8), 0)

    qdq_constants.store(graph, {"w": weight})

    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    assert found["gemm_bias_quantized"].tolist() == [2**31 - 1, -(2**31), 2**31 - 1]
