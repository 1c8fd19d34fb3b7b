"""Makes the Debian package that Cargo.toml describes in [package.metadata.deb], as cargo-deb does, with nothing but Python and
dpkg: cargo-deb takes minutes to install. Whoever has it runs `bash tools/package/prepare.sh && cargo deb --no-build`.

    python3 tools/package/deb.py [--binary FILE] [--output DIRECTORY]

Prints the path of the package. tools/package/prepare.sh must have run with the same binary."""

import argparse
import glob
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
PROGRAM = "target/release/turbopump"


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, capture_output=True, **options).stdout


def stage(assets, binary, root):
    """Copies what the package has to where it will be."""
    for source, target, mode in assets:
        # The program may be one that was built otherwise.
        found = [binary] if source == PROGRAM else sorted(glob.glob(source))
        if not found:
            sys.exit(f"{source} is not there: run tools/package/prepare.sh first")
        for file in found:
            path = os.path.join(root, target, os.path.basename(file)) if target.endswith("/") else os.path.join(root, target)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copyfile(file, path)
            os.chmod(path, int(mode, 8))
    run("strip", "--strip-unneeded", os.path.join(root, "usr/bin/turbopump"))


def libraries(root):
    """The packages of the libraries that the program is linked with, with the versions that it needs."""
    with tempfile.TemporaryDirectory() as work:
        os.mkdir(os.path.join(work, "debian"))
        with open(os.path.join(work, "debian/control"), "w") as control:
            control.write("Source: turbopump\n\nPackage: turbopump\nArchitecture: any\n")
        program = os.path.join(root, "usr/bin/turbopump")
        told = run("dpkg-shlibdeps", "-O", program, cwd=work)
    return told.strip().removeprefix("shlibs:Depends=")


def write(path, text, mode=0o644):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def control(package, metadata, architecture, depends, kilobytes):
    fields = {
        "Package": package["name"],
        "Version": f"{package['version']}-1",
        "Architecture": architecture,
        "Maintainer": metadata["maintainer"],
        "Installed-Size": str(kilobytes),
        "Depends": metadata["depends"].replace("$auto", depends),
        "Recommends": metadata["recommends"],
        "Section": metadata["section"],
        "Priority": metadata["priority"],
        "Description": package["description"],
    }
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    lines = (f" {line}" if line.strip() else " ." for line in metadata["extended-description"].strip().splitlines())
    return text + "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Makes a Debian package.")
    parser.add_argument("--binary", default=PROGRAM)
    parser.add_argument("--output", default="target/debian")
    arguments = parser.parse_args()
    binary, output = os.path.abspath(arguments.binary), os.path.abspath(arguments.output)
    os.chdir(ROOT)
    with open("Cargo.toml", "rb") as file:
        package = tomllib.load(file)["package"]
    metadata = package["metadata"]["deb"]
    os.makedirs(output, exist_ok=True)
    architecture = run("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        stage(metadata["assets"], binary, root)
        documents = os.path.join(root, "usr/share/doc", package["name"])
        write(os.path.join(documents, "copyright"), f"License: {package['license']}\n\n" + open("LICENSE").read())
        with open("CHANGELOG.md", "rb") as changes, gzip.GzipFile(os.path.join(documents, "changelog.gz"), "wb", mtime=0) as file:
            file.write(changes.read())
        depends = libraries(root)
        sizes = (os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(root) for name in names)
        kilobytes = sum(-(-size // 1024) for size in sizes)
        os.mkdir(os.path.join(root, "DEBIAN"))
        write(os.path.join(root, "DEBIAN/control"), control(package, metadata, architecture, depends, kilobytes))
        write(os.path.join(root, "DEBIAN/conffiles"), "".join(f"{name}\n" for name in metadata["conf-files"]))
        for script in ["postinst", "prerm", "postrm"]:
            write(os.path.join(root, "DEBIAN", script), open(os.path.join(metadata["maintainer-scripts"], script)).read(), 0o755)
        name = f"{package['name']}_{package['version']}-1_{architecture}.deb"
        target = os.path.join(output, name)
        # Packages that are made to be looked at need not be small.
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z6", "--build", root, target)
    print(target)


if __name__ == "__main__":
    main()
