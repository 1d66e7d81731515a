"""ONNX's own backend suite, through ONNX's own runner: each case passes, or is refused in words for a reason below.

Node cases, PyTorch's converted and operator cases, simple ones, and nine whole architectures.
"""

from __future__ import annotations

import os
import re
import unittest
import warnings

import pytest

pytest.importorskip("onnx")

import numpy as np
import onnx
from nets import on
from onnx import numpy_helper
from onnx.backend.test import BackendTest
from onnx.backend.test.loader import load_model_tests

import xpconv
from xpconv import exchange
from xpconv.exchange.onnx import Backend, Model, UnsupportedError
from xpconv.exchange.onnx.operators import TABLE
from xpconv.exchange.onnx.table import DTYPES

# Operators of the suite that are not in the table, by reason: a model with one of them is refused, and it is named.
NOT_HERE = {
    "control flow, which array libraries do not capture": "If Loop Scan SequenceMap",
    "sequences, optionals and strings are no arrays": """SequenceAt SequenceConstruct SequenceEmpty SequenceErase
        SequenceInsert SequenceLength SplitToSequence ConcatFromSequence OptionalGetElement OptionalHasElement
        RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer""",
    "recurrent and attention layers are not convolutional": """GRU LSTM RNN Attention LinearAttention RotaryEmbedding
        CausalConvWithState TensorScatter SwiGLU RMSNormalization ai.onnx.preview.FlexAttention""",
    "quantised arithmetic has no op here": """ConvInteger MatMulInteger QLinearConv QLinearMatMul QuantizeLinear
        DequantizeLinear DynamicQuantizeLinear""",
    "shapes that depend on the data": "Compress NonMaxSuppression NonZero Unique",
    "random numbers that ONNX does not define": "Bernoulli RandomUniformLike",
    "signal processing and windows": "BlackmanWindow HammingWindow HannWindow DFT STFT MelWeightMatrix",
    "losses and optimizers: training is xpconv.train's": """NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss
        ai.onnx.preview.training.Adagrad ai.onnx.preview.training.Adam ai.onnx.preview.training.Gradient
        ai.onnx.preview.training.Momentum""",
    "classical machine learning": """ai.onnx.ml.ArrayFeatureExtractor ai.onnx.ml.Binarizer ai.onnx.ml.LabelEncoder
        ai.onnx.ml.TreeEnsemble""",
    "sampling at places that are data; decoding": "AffineGrid DeformConv GridSample RoiAlign Col2Im ImageDecoder",
    "linear algebra and scans": "Det Einsum CumSum CumProd Trilu EyeLike",
    "scattering and sorting": "Scatter ScatterElements ScatterND GatherND OneHot TopK ReverseSequence CenterCropPad",
    "bits": "BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor",
    "functions that no convolutional network uses": """Acos Acosh Asin Asinh Atan Atanh Cosh Sinh Tan LpNormalization
        MeanVarianceNormalization""",
}
ABSENT = {name for names in NOT_HERE.values() for name in names.split()}

# What exchange.onnx promises: no case of these may be left out but for a type that NumPy lacks, or by name below.
FAMILIES = {
    "layers": """Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool MaxUnpool
        BatchNormalization InstanceNormalization GroupNormalization LayerNormalization LRN Pad Resize Upsample
        Softmax LogSoftmax Hardmax Gemm MatMul Flatten Dropout DepthToSpace SpaceToDepth""",
    "activations": """Relu LeakyRelu PRelu Elu Celu Selu Sigmoid HardSigmoid HardSwish Softplus Softsign Tanh Gelu Mish
        ThresholdedRelu Swish Shrink Erf Clip""",
    "arithmetic": """Add Sub Mul Div Mod Pow Sqrt Exp Log Abs Neg Ceil Floor Round Sign Reciprocal Min Max Sum Mean
        Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not Where IsNaN IsInf Cast CastLike""",
    "shapes": """Concat Reshape Transpose Squeeze Unsqueeze Slice Gather GatherElements Shape Size Constant
        ConstantOfShape Expand Tile Split Identity Range""",
    "reductions": """ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
        ReduceSumSquare ArgMax ArgMin""",
}
PROMISED = {name for names in FAMILIES.values() for name in names.split()}

# Cases of operators that are in the table, and why they fail all the same.
LEFT_OUT = {
    "test_training_dropout": "drops by NumPy's own random numbers, which ONNX does not define",
    "test_training_dropout_default": "drops by NumPy's own random numbers",
    "test_training_dropout_mask": "drops by NumPy's own random numbers",
    "test_training_dropout_default_mask": "drops by NumPy's own random numbers",
    "test_attention_4d_causal_fp16_expanded": "float16 rounded once instead of after each step: one ulp, above 1e-3",
}


class Strict(Backend):
    """Lets no case slip away as incompatible."""

    @classmethod
    def is_compatible(cls, *args, **kwargs):
        return True


def model_of(case):
    return case.model or (onnx.load(os.path.join(case.model_dir, "model.onnx")) if case.model_dir else None)


def operators(model) -> set[str]:
    return {n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}.{n.op_type}" for n in model.graph.node}


def lacking(model) -> set[str]:
    """Types of inputs and outputs that no array has here: bfloat16, 8-bit floats and less, strings, sequences."""
    found = set()
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value")
        number = value.type.tensor_type.elem_type
        if kind != "tensor_type":
            found.add(kind.removesuffix("_type"))
        elif number not in DTYPES:
            found.add(onnx.TensorProto.DataType.Name(number).lower())
    return found


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the suite computes its expectations as it is loaded
    RUNNER = BackendTest(Strict, __name__)
    CASES = {
        case.name: model_of(case)
        for kind in ("node", "simple", "pytorch-converted", "pytorch-operator")
        for case in load_model_tests(kind=kind)
    }
REFUSED = {
    name: refused
    for name, model in CASES.items()
    if (refused := (operators(model) & ABSENT) | lacking(model)) and name not in LEFT_OUT
}


def refusing(name):
    """A test that the model is refused, and that all it needs and lacks is named."""

    def test(self):
        with pytest.raises(UnsupportedError) as raised:
            Strict.prepare(CASES[name])
        assert all(f"{part}" in str(raised.value) for part in REFUSED[name]), raised.value

    return test


def adapted(suite: type[unittest.TestCase]) -> type[unittest.TestCase]:
    for function in [name for name in vars(suite) if name.startswith("test_")]:
        name, _, device = function.rpartition("_")
        if name in LEFT_OUT or (device == "cuda" and not Backend.supports_device("CUDA")):
            delattr(suite, function)
        elif name in REFUSED:
            setattr(suite, function, refusing(name))
    return suite


globals().update({name: adapted(suite) for name, suite in RUNNER.test_cases.items()})


@pytest.fixture(autouse=True)
def _downloads_go_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_MODELS", str(tmp_path))  # where the runner puts what it makes for whole architectures


# What these libraries cannot compute with; NumPy can.
MISSING = {"torch": {"uint16", "uint32", "uint64"}, "array_api_strict:device1": {"float16"}}


@pytest.mark.parametrize("backend", MISSING)
def test_node_cases_on_other_backends(backend):
    """Every node case of what is in the table, but for dtypes that the library cannot compute with."""
    with on(backend):
        failed, run = {}, 0
        for case in load_model_tests(kind="node"):
            if case.name in REFUSED or case.name in LEFT_OUT or dtypes(case.model) & MISSING[backend]:
                continue
            run += 1
            try:
                model = Model(case.model)
                for inputs, expected in case.data_sets:
                    given = [xpconv.asarray(x) for x in map(array, inputs)]
                    outputs = model(*given)
                    assert all(type(y) is type(given[0]) for y in outputs if given)
                    hosts = [xpconv.to_numpy(y) for y in outputs]
                    BackendTest.assert_similar_outputs(list(map(array, expected)), hosts, case.rtol, case.atol)
            except Exception as error:
                failed[case.name] = repr(error)[:200]
    assert not failed, failed
    assert run > 950


def dtypes(model) -> set[str]:
    ports = (*model.graph.input, *model.graph.output)
    return {DTYPES[port.type.tensor_type.elem_type] for port in ports}


def array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def test_on_cuda():
    if not Backend.supports_device("CUDA"):
        pytest.skip("CuPy finds no device: the suite's cases for CUDA are left out")


@pytest.mark.parametrize("name", LEFT_OUT)
def test_left_out_by_name(name):
    assert LEFT_OUT[name]
    assert operators(CASES[name]) <= set(TABLE)


def test_every_operator_of_the_suite_is_in_the_table_or_named_as_absent():
    needed = set().union(*map(operators, CASES.values()))
    assert needed - set(TABLE) == ABSENT
    assert set(TABLE) >= PROMISED
    assert not PROMISED & ABSENT


def test_the_table_in_the_documentation_is_the_table():
    told = exchange.onnx.__doc__.partition("---\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"\b[A-Z][A-Za-z0-9]+\b", told)) == set(TABLE)


def test_no_case_of_what_is_promised_is_left_out():
    """Save for a type that NumPy lacks, or by name."""
    run = {
        name[: -len("_cpu")] for suite in RUNNER.test_cases.values() for name in vars(suite) if name.endswith("_cpu")
    }
    for name, model in CASES.items():
        if operators(model) <= PROMISED and not lacking(model) and name not in LEFT_OUT:
            assert name in run
            assert name not in REFUSED
    alone = [name for name, model in CASES.items() if operators(model) <= PROMISED]
    assert len(alone) > 1000
    assert sum(name in REFUSED for name in alone) == sum(bool(lacking(CASES[name])) for name in alone)


def test_the_nine_architectures_are_run():
    real = [name for name in vars(RUNNER.test_cases["OnnxBackendRealModelTest"]) if name.endswith("_cpu")]
    assert len(real) == 9
