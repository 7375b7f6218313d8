"""Every setting of one training, and how an attempt overrides the baseline's."""

import json
import keyword
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS, RESULT_KEYS, TRIAL_KEYS
from basekamp.validation import (
    Problem,
    did_you_mean,
    not_allowed,
    one_of,
    problems_of,
    raise_together,
    said,
    unknown_key,
)

LONGEST_OWN_MODEL = 80
MODELS = ("majority", "mean", "linear", "mlp", "cnn", "resnet", "tabular", "boosting")
RESNET_LAYERS = (9, 18)

Option = int | float | bool | str
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]

CONSTANT_MODELS = ("majority", "mean")
IMAGE_FIELDS = ("flip", "crop", "cutout")
_LAYER_FIELDS = ("n_layers", "width", "act", "dropout")
_BOOSTING_FIELDS = ("n_trees", "n_leaves", "shrinkage")
_EXTRA_FIELDS = ("warmup", "label_smoothing", "clip_norm", "ema", *IMAGE_FIELDS, "precision")
"""Settings that a training does without unless they are asked for: a record tells them only where they are on."""
_ANY_OWN_MODEL = "package.module:callable"


class Hyperparameters(BaseModel):
    """Every setting of one training; built by `from_mapping` where a user's values come in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="linear", description=f"{', '.join(MODELS)} or package.module:callable")
    n_layers: Whole = Field(default=2, le=64, description="a whole number from 1 to 64")
    width: Whole = Field(default=128, ge=1, le=65536, description="a whole number from 1 to 65536")
    act: Literal["relu", "leaky_relu", "gelu", "silu", "tanh"] = Field(
        default="relu", description="relu, leaky_relu, gelu, silu or tanh"
    )
    dropout: Number = Field(default=0.0, ge=0, lt=1, description="a number from 0 to below 1")
    n_epochs: Whole = Field(default=20, ge=1, le=100_000, description="a whole number from 1 to 100000")
    batch_size: Whole = Field(default=128, ge=1, le=1 << 24, description="a whole number from 1 to 16777216")
    lr: Number = Field(default=1e-3, gt=0, description="a number above 0")
    weight_decay: Number = Field(default=1e-4, ge=0, description="a number of 0 or more")
    schedule: Literal["cosine", "constant", "one_cycle"] = Field(
        default="cosine", description="cosine, constant or one_cycle"
    )
    warmup: Number = Field(
        default=0.0, ge=0, lt=1, description="a number from 0 to below 1: the share of steps in which lr rises from 0"
    )
    patience: Whole = Field(
        default=5,
        ge=0,
        le=100_000,
        description="a whole number from 0 to 100000: the epochs without a better validation value before "
        "stopping, 0 for never",
    )
    label_smoothing: Number = Field(default=0.0, ge=0, lt=1, description="a number from 0 to below 1")
    clip_norm: Number = Field(
        default=0.0, ge=0, description="a number of 0 or more: the longest gradient that is allowed, 0 for any"
    )
    ema: Number = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="a number from 0 to below 1, such as 0.999: how slowly the averaged weights follow, 0 for none",
    )
    flip: Switch = Field(default=False, description="true or false: whether images are mirrored at random")
    crop: Whole = Field(
        default=0, ge=0, le=256, description="a whole number from 0 to 256: the pixels that images are moved at most"
    )
    cutout: Whole = Field(
        default=0, ge=0, le=4096, description="a whole number from 0 to 4096: the side of a square that is blanked"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto (bfloat16 on a GPU, else float32), float32 or bfloat16"
    )
    n_trees: Whole = Field(default=300, ge=1, le=100_000, description="a whole number from 1 to 100000")
    n_leaves: Whole = Field(default=31, ge=2, le=4096, description="a whole number from 2 to 4096")
    shrinkage: Number = Field(default=0.1, gt=0, le=1, description="a number above 0 and at most 1")
    options: dict[str, Option] = Field(
        default={}, description="a mapping of keywords for a model of your own, such as {depth: 3}"
    )

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, model: str) -> str:
        if is_own_model(model) and len(model) > LONGEST_OWN_MODEL:
            raise said(
                not_allowed(model, f"{LONGEST_OWN_MODEL} characters or fewer, since each record's name begins so")
            )
        if model in MODELS or is_own_model(model):
            return model
        near = did_you_mean(model, MODELS)
        use = f"{one_of(MODELS)}, or package.module:callable for your own"
        raise said(not_allowed(model, use + (f" ({near.strip()})" if near else "")))

    @field_validator("n_layers")
    @classmethod
    def _has_a_layer(cls, n_layers: int) -> int:
        if n_layers < 1:
            raise said(not_allowed(n_layers, "1 or more, or model: linear for no hidden layer"))
        return n_layers

    @field_validator("options", mode="before")
    @classmethod
    def _options_are_keywords(cls, options: Any) -> Any:
        if isinstance(options, dict):
            raise_together(
                Problem((key,), clause, value)
                for key, value in options.items()
                if (clause := _option_clause(key, value))
            )
        return options

    @model_validator(mode="after")
    def _resnet_has_known_layers(self) -> Self:
        if self.model == "resnet" and self.n_layers not in RESNET_LAYERS:
            clause = f"={self.n_layers} is not allowed with model: resnet: use 9 or 18."
            raise_together([Problem(("n_layers",), clause)])
        return self

    @model_validator(mode="after")
    def _options_have_a_reader(self) -> Self:
        if self.options and not is_own_model(self.model):
            clause = f" has no effect with model: {self.model}: use it with model: package.module:callable."
            raise_together([Problem(("options",), clause)])
        return self

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return the hyperparameters that the values and the defaults give.

        Raises:
            InputError: one line for each unknown key and each value that is not allowed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError("\n".join(p.sentence() for p in problems_of(error, cls))) from error

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the hyperparameters among the arguments of a component, where `options` is a JSON object.

        Settings in `overrides`, a JSON object too, are laid over them.

        Raises:
            InputError: one line for each value that is not allowed, or what is no JSON object.
        """
        own = {key: value for key, value in arguments.items() if key in cls.model_fields}
        own["options"] = _json_object("options", own.get("options", "{}"))
        return cls.from_mapping(override(own, _json_object("overrides", arguments.get("overrides", "{}"))))

    def used(self) -> tuple[str, ...]:
        """Return the names of the settings that this model reads, in declared order; own options are not among them."""
        return settings_read_by(self.model)

    def effective(self) -> dict[str, Option]:
        """Return what matters for this model, in declared order, `model` first and own options last.

        Settings that are off unless asked for are left out while they are off.
        """
        fields = type(self).model_fields
        told: dict[str, Option] = self.model_dump(include=set(self.used()))
        return {
            **{key: value for key, value in told.items() if key not in _EXTRA_FIELDS or value != fields[key].default},
            **self.options,
        }


def settings_read_by(model: str) -> tuple[str, ...]:
    """Return the names of the settings that a model reads, in declared order; own options are not among them."""
    if model in CONSTANT_MODELS:
        return ("model",)
    if model == "boosting":
        return ("model", *_BOOSTING_FIELDS)
    has_layers = model != "linear" and not is_own_model(model)
    unused = {"options", *_BOOSTING_FIELDS, *(() if has_layers else _LAYER_FIELDS)}
    return tuple(name for name in Hyperparameters.model_fields if name not in unused)


def is_own_model(model: str) -> bool:
    """Return whether the text has the form package.module:callable; nothing is imported."""
    module, colon, attribute = model.partition(":")
    return bool(colon) and all(_is_name(part) for part in (*module.split("."), *attribute.split(".")))


def override(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with the changes laid over it.

    `options` are merged key by key while the model stays the same; another model starts without the base's.
    """
    merged = {**base, **changes}
    default = Hyperparameters.model_fields["model"].default
    if merged.get("model", default) == base.get("model", default):
        options = {**base.get("options", {}), **changes.get("options", {})}
    else:
        options = changes.get("options", {})
    return {**merged, "options": options}


def override_problems(values: Mapping[str, Any], *, other_keys: tuple[str, ...] = ()) -> list[Problem]:
    """Return what is wrong with overrides on their own, whatever they will be laid over.

    Args:
        values: some of the hyperparameters.
        other_keys: keys that are allowed beside them, named when a key is unknown.
    """
    known = {key: value for key, value in values.items() if key in Hyperparameters.model_fields}
    allowed = (*other_keys, *Hyperparameters.model_fields)
    unknown = [Problem((key,), unknown_key(key, allowed), values[key]) for key in values if key not in known]
    try:
        Hyperparameters.model_validate({"model": _ANY_OWN_MODEL, "n_layers": RESNET_LAYERS[0], **known})
    except ValidationError as error:
        return unknown + problems_of(error, Hyperparameters)
    return unknown


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise InputError(f"{name}={text:.60} is no JSON ({error}): use an object such as {{}}.") from error
    if not isinstance(read, dict):
        raise InputError(f"{name}={text:.60} is no JSON object: use one such as {{}}.")
    return read


def _option_clause(key: object, value: object) -> str:
    if not isinstance(key, str) or not _is_name(key):
        return " is not allowed as a keyword: use letters, digits and _, not beginning with a digit."
    if key in (*RESULT_KEYS, *TRIAL_KEYS) or key in METRICS:
        return " is a result's name in every record: give the option another name."
    if key in Hyperparameters.model_fields:
        return " is the name of a hyperparameter: give the option another name."
    if not isinstance(value, int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        return not_allowed(value, "a finite number, true, false or a text")
    return ""


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)
