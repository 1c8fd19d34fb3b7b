"""What Cargo.toml says of the packages is true, and the same of both: each asset is there, or is made by tools/package/prepare.sh."""

import glob
import os
import sys
import tomllib

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
MADE = ("target/",)
# Where Debian and Red Hat differ.
ELSEWHERE = {"usr/share/zsh/vendor-completions/_turbopump": "usr/share/zsh/site-functions/_turbopump"}


def main():
    os.chdir(ROOT)
    with open("Cargo.toml", "rb") as file:
        metadata = tomllib.load(file)["package"]["metadata"]
    deb = {(source, ELSEWHERE.get(target, target), mode) for source, target, mode in metadata["deb"]["assets"]}
    rpm = metadata["generate-rpm"]
    of_rpm = {(asset["source"], asset["dest"].lstrip("/"), asset["mode"]) for asset in rpm["assets"]}
    problems = [f"only one of deb and rpm has {asset}" for asset in sorted(deb ^ of_rpm)]
    for source, _, _ in sorted(deb):
        if not source.startswith(MADE) and not glob.glob(source):
            problems.append(f"{source} is not there")
    scripts = [rpm[name] for name in sorted(rpm) if name.endswith("_script")]
    scripts += [os.path.join(metadata["deb"]["maintainer-scripts"], name) for name in ("postinst", "prerm", "postrm")]
    problems += [f"{script} is not there" for script in scripts if not os.path.isfile(script)]
    configured = {"/" + target for _, target, _ in metadata["deb"]["assets"] if target.startswith("etc/")}
    if configured != set(metadata["deb"]["conf-files"]):
        problems.append(f"conf-files are not what lies in /etc: {sorted(configured)}")
    if configured != {asset["dest"] for asset in rpm["assets"] if asset.get("config") == "noreplace"}:
        problems.append("the rpm's configuration files are not what lies in /etc")
    if problems:
        sys.exit("\n".join(problems))
    print(f"  Cargo.toml: {len(deb)} kinds of files, the same in deb and rpm")


if __name__ == "__main__":
    main()
