"""The work of a stage, part after part, and how long it takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """What a device achieves, in FLOP/s."""

    rate: float
    cores: int  # that it has; without loaders all of them decode and crop, and one augments
    float32: float | None = None  # rate of what is in float32; None: the same

    @property
    def tf32(self) -> float:
        """Rate of float32 that may be rounded to TF32: half of bfloat16's by data sheets, where
        rates are told apart."""
        return max(self.float32, self.rate / 2) if self.float32 else self.rate


@dataclass(frozen=True)
class Part:
    """A part of a stage's work, which its devices share."""

    what: str  # training, coding, sampling, encoding, validation or features
    flops: int
    devices: float  # on average
    picture_core_seconds: float = 0.0  # of decoding and cropping, or of encoding
    augmenting_core_seconds: float = 0.0  # of RandAugment
    loaders: int = 0  # processes of each device that do both, where it has any
    float32: int = 0  # of the FLOPs, those in float32
    tf32: int = 0  # and those that TF32 may take

    def seconds(self, device: Device) -> float:
        """How long it takes. In trainings the next batches are prepared meanwhile, and the slower
        of networks and processors counts; elsewhere a batch is prepared and then worked on."""
        if self.loaders:
            prepared = (self.picture_core_seconds + self.augmenting_core_seconds) / self.loaders
        else:
            prepared = max(self.picture_core_seconds / device.cores, self.augmenting_core_seconds)
        work = self.float32 / (device.float32 or device.rate) + self.tf32 / device.tf32
        work += (self.flops - self.float32 - self.tf32) / device.rate
        time = max(work, prepared) if self.what == "training" else work + prepared
        return time / self.devices


@dataclass(frozen=True)
class Stage:
    """The work of a stage."""

    name: str
    parts: tuple[Part, ...]

    @property
    def flops(self) -> int:
        return sum(part.flops for part in self.parts)

    @property
    def float32(self) -> int:
        """FLOPs in float32."""
        return sum(part.float32 for part in self.parts)

    @property
    def devices(self) -> float:
        """How many share the work, on average."""
        time = sum(part.flops / part.devices for part in self.parts)
        return self.flops / time if time else max(part.devices for part in self.parts)

    @property
    def core_seconds(self) -> float:
        return sum(part.picture_core_seconds + part.augmenting_core_seconds for part in self.parts)

    def flops_of(self, what: str) -> int:
        return sum(part.flops for part in self.parts if part.what == what)

    def seconds(self, device: Device) -> float:
        return sum(part.seconds(device) for part in self.parts)
