"""The network of a run, loaded, compiled if the run's is, and on its device."""

import torch

from cam_ops.errors import OtherWeightsError
from cam_ops.explain.mapper import Mapper
from cam_ops.network.load import load_classifier
from cam_ops.settings import ModelConfig, RefineConfig
from cluster.machine.compilation import compile_mapper
from cluster.machine.gpu import loading
from cluster.machine.precision import DTYPES
from cluster.runs.request import Request


def load_mapper(request: Request, model: ModelConfig) -> Mapper:
    """Load the network that `model` names and make it what the request says, on the request's device.

    Raises OtherWeightsError if its weights are not those of the run, UsageError or MachineError if it cannot be used.
    """
    classifier = load_classifier(model)
    if classifier.digest != request.model_digest:
        raise OtherWeightsError(
            f"the weights of {model.model} are not those of the run; check that --weights is the same file on every "
            "node, and that a factory gives the same weights on each call"
        )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = (
        False  # fp32 means it, whatever a factory says
    )
    device, shape = torch.device(request.device), request.preprocessing
    refine = RefineConfig(refine="none")
    if request.refinement is not None:
        refine = RefineConfig(refine_layers=request.refinement.layers, keep_cam=request.refinement.keep_cam)
    mapper = Mapper(classifier.network, request.explain, shape.image_size, shape.mean, shape.std, refine)
    with loading(device, model.model):
        if request.compiled:
            compile_mapper(mapper, request)
        mapper.to(device, DTYPES[request.precision])
    return mapper
