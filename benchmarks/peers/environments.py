"""The environments of the peers: one for each, made when it is first needed, or when its pins have changed."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".cache" / "peers"
PROGRAMS = Path(__file__).with_name("programs")
INSTALL_SECONDS = 900.0


@dataclass(frozen=True)
class Environment:
    name: str
    """Of its program and of its pins."""
    probe: str
    """What Python can do there when all that the program needs is there."""

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"

    def missing(self) -> str:
        """Makes it. Why it cannot be used; empty if it can."""
        pins = PROGRAMS / f"{self.name}.txt"
        installed = ENVIRONMENTS / self.name / "installed.txt"
        try:
            wanted = pins.read_text()
            if not installed.exists() or installed.read_text() != wanted:
                self._install(pins)
                installed.write_text(wanted)
            _run(str(self.python), "-c", self.probe)
        except subprocess.TimeoutExpired:
            return f"not installed within {INSTALL_SECONDS:.0f} s"
        except (subprocess.CalledProcessError, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            return str(said).strip().splitlines()[-1]
        return ""

    def _install(self, pins: Path) -> None:
        folder = ENVIRONMENTS / self.name
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
