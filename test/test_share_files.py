"""Launch, configuration and documentation name only what the code has."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import yaml

from dsca_ros.ros.node import DscaNode
from dsca_ros.ros.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
SETUP = (ROOT / "setup.py").read_text()


def test_config_holds_every_parameter_with_its_default():
    written = yaml.safe_load((ROOT / "config/dsca.yaml").read_text())["/**"]["ros__parameters"]
    assert written == {name: default for name, (default, _) in PARAMETERS.items()}


def test_config_comments_every_parameter():
    lines = (ROOT / "config/dsca.yaml").read_text().splitlines()
    for name in PARAMETERS:
        index = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        # max_depth shares the comment of min_depth above it.
        above = lines[index - 1].strip()
        assert above.startswith("#") or (name, above.split(":")[0]) == ("max_depth", "min_depth")


def test_launch_files_name_what_exists():
    node_source = Path(DscaNode.__init__.__globals__["__file__"]).read_text()
    topics = set(re.findall(r'"((?:depth|depth_sr)/[a-z_]+)"', node_source))
    files = list((ROOT / "launch").glob("*.launch.xml"))
    assert files
    for path in files:
        root = ET.parse(path).getroot()
        declared = {arg.get("name") for arg in root.iter("arg")}
        assert all(arg.get("description") for arg in root.iter("arg")), path
        assert set(re.findall(r"\$\(var (\w+)\)", path.read_text())) <= declared
        for shared in re.findall(r"\$\(find-pkg-share dsca_ros\)/([^\"]+)", path.read_text()):
            assert (ROOT / shared).is_file(), shared
        for node in root.iter("node"):
            assert f"{node.get('exec')} = dsca_ros." in SETUP
            for parameter in node.iter("param"):
                assert parameter.get("from") or parameter.get("name") in {*PARAMETERS, "use_sim_time"}
            assert {remap.get("from") for remap in node.iter("remap")} <= topics


def test_dds_profile_is_xml_that_sets_shared_memory():
    text = (ROOT / "config/fastdds.xml").read_text()
    space = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
    sizes = [int(e.text) for e in ET.fromstring(text.split("?>", 1)[1]).iter(f"{space}segment_size")]
    # Four frames of 1280x960 uint16 must fit.
    assert sizes and min(sizes) >= 4 * 1280 * 960 * 2


def test_readme_links_exist():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_readme_names_topics_and_parameters_that_exist():
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (.*?) \|", text.split("| parameter |")[1].split("\n\n")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert named == set(PARAMETERS)
