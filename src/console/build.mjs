// Writes assets/: the page, one script and one style sheet, which the broker is compiled with. The same sources and lock file
// give the same bytes. With `--check` nothing is written: it exits with 1 when what is committed differs.
import { createHash } from "node:crypto";
import { readFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const assets = join(here, "assets");
const check = process.argv.includes("--check");

const built = await build({
  absWorkingDir: here,
  entryPoints: { console: "main.tsx", style: "style.css" },
  outdir: "out",
  bundle: true,
  write: false,
  minify: true,
  charset: "ascii",
  format: "esm",
  target: ["es2022", "chrome110", "firefox115", "safari16"],
  legalComments: "none",
  logLevel: "warning",
});

/** What is served, by its name. */
const files = new Map();
for (const file of built.outputFiles) {
  files.set(file.path.split("/").pop(), Buffer.from(file.contents));
}
files.set("icon.svg", readFileSync(join(here, "icon.svg")));

// A browser keeps what it has under an address with a hash for good, so the address changes with the content.
const hash = (bytes) => createHash("sha256").update(bytes).digest("hex").slice(0, 16);
const page = readFileSync(join(here, "index.html"), "utf8").replace(/"([a-z]+\.(?:js|css|svg))"/g, (_, name) => {
  if (!files.has(name)) throw new Error(`index.html names ${name}, which is not built`);
  return `"${name}?v=${hash(files.get(name))}"`;
});
files.set("index.html", Buffer.from(page));

const committed = (name) => {
  try {
    return readFileSync(join(assets, name));
  } catch {
    return Buffer.alloc(0);
  }
};
if (check) {
  const present = readdirSync(assets);
  const stale = [...files].filter(([name, bytes]) => !committed(name).equals(bytes)).map(([name]) => name);
  stale.push(...present.filter((name) => !files.has(name)));
  if (stale.length > 0) {
    console.error(`src/console/assets is not what its sources make (${stale.join(", ")}): run \`just console\` and commit`);
    process.exit(1);
  }
  console.log("src/console/assets is current");
} else {
  rmSync(assets, { recursive: true, force: true });
  mkdirSync(assets);
  for (const [name, bytes] of files) writeFileSync(join(assets, name), bytes);
  const sizes = [...files].map(([name, bytes]) => `${name} ${bytes.length}`);
  console.log(`src/console/assets: ${sizes.join(", ")}`);
}
