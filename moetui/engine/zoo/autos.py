"""Which configuration and which ``AutoModel…`` class belong to an architecture, by transformers' own mappings."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto import configuration_auto, modeling_auto

from moetui.routing import UnsupportedError

#: Auto classes that can run a model on text, most complete model first, with the name of their mapping.
_AUTO_CLASSES: tuple[tuple[str, str], ...] = (
    ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    ("AutoModelForImageTextToText", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"),
    ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    ("AutoModelForMultimodalLM", "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES"),
    ("AutoModelForTokenClassification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES"),
)


def auto_class(config: PreTrainedConfig) -> Any:
    """The ``AutoModel…`` class that loads a model of this configuration with everything it needs for text.

    A checkpoint that names its class in ``config.architectures`` gets the auto class that builds that class;
    otherwise the most complete model wins: encoder and decoder, then with its vision tower, then the decoder
    alone, then a token classifier.

    Raises:
        UnsupportedError: no auto class of transformers builds a text model from this configuration.
    """
    offers = {auto: _mapping(mapping).get(config.model_type) for auto, mapping in _AUTO_CLASSES}
    for wanted in config.architectures or ():
        for auto, offer in offers.items():
            if wanted in _names(offer):
                return getattr(transformers, auto)
    for auto, offer in offers.items():
        if offer is not None:
            return getattr(transformers, auto)
    raise UnsupportedError(
        f"transformers has no text model for the model type {config.model_type!r}",
        "moetui debugs language models; `moetui models` lists the architectures it knows",
    )


def config_class(folder: str, model_type: str | None = None) -> type[PreTrainedConfig]:
    """The configuration class of the most complete text model whose source is in ``transformers/models/folder``.

    Args:
        folder: of the source.
        model_type: the one that is wanted, should it not be that.

    Raises:
        UnsupportedError: none of the folder's model types has a text model.
    """
    model_types = (
        [model_type]
        if model_type
        else [
            each
            for each in configuration_auto.CONFIG_MAPPING_NAMES
            if configuration_auto.model_type_to_module_name(each) == folder
        ]
    )
    for _, mapping in _AUTO_CLASSES:
        for each in model_types:
            if each in _mapping(mapping):
                found: type[PreTrainedConfig] = configuration_auto.CONFIG_MAPPING[each]
                return found
    raise UnsupportedError(f"transformers has no text model in models/{folder}")


def _mapping(name: str) -> dict[str, Any]:
    return dict(getattr(modeling_auto, name))


def _names(offer: Any) -> tuple[str, ...]:
    if offer is None:
        return ()
    return (offer,) if isinstance(offer, str) else tuple(offer)
