//! Links the program: see `src/runtime/ring.rs`.

fn main() {
    println!("cargo::rerun-if-changed=tools/build.rs");
    if std::env::var_os("CARGO_FEATURE_SERVER").is_some() {
        println!("cargo::rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
    }
}
