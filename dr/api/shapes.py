"""What every shape of the API's JSON is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1


class Part(BaseModel):
    """Something inside a document."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Document(Part):
    """Something that is answered on its own."""

    version: int = VERSION


class Body(BaseModel):
    """What is sent in; unknown fields are refused, as they may have meant something."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(default="", max_length=1000)
