//! Links the program: see `src/runtime/ring.rs`.

fn main() {
    println!("cargo::rerun-if-changed=tools/build.rs");
    println!("cargo::rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
}
