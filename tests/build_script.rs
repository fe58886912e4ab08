//! What `build.rs` decides: compilers, architectures, what is up to date.

#![expect(dead_code, reason = "the script uses all of it")]

#[path = "../build/architectures.rs"]
mod architectures;
#[path = "../build/images.rs"]
mod images;
#[path = "../build/kernel.rs"]
mod kernel;
#[path = "../build/nvcc.rs"]
mod nvcc;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::architectures::requested;
use crate::kernel::{fingerprint, parse_rule};
use crate::nvcc::{candidates, host_compiler, missing, parse_release};

/// An environment of these variables alone.
fn environment<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    |name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into())
}

fn names(variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
    Ok(requested(environment(variables))?.iter().map(ToString::to_string).collect())
}

#[test]
fn architectures_are_ascending_and_none_comes_twice() {
    assert_eq!(names(&[]).unwrap(), ["80", "86", "89", "90", "100", "120"]);
    assert_eq!(names(&[("MIVC_CUDA_ARCHS", "120, 90a,80,90,80")]).unwrap(), ["80", "90", "90a", "120"]);
    assert_eq!(names(&[("MIVC_CUDA_ARCHS", "100f")]).unwrap(), ["100f"]);
}

#[test]
fn a_list_comes_before_the_capability_that_other_crates_read() {
    assert_eq!(names(&[("CUDA_COMPUTE_CAP", "89")]).unwrap(), ["89"]);
    assert_eq!(names(&[("CUDA_COMPUTE_CAP", "89"), ("MIVC_CUDA_ARCHS", "80,86")]).unwrap(), ["80", "86"]);
}

#[test]
fn a_bad_list_is_named_with_what_is_wrong() {
    for bad in ["80,", "sm_80", "8.0", "80;90", "90aa", "a", "-80", "99999999999"] {
        let error = names(&[("MIVC_CUDA_ARCHS", bad)]).unwrap_err();
        assert!(error.starts_with(&format!("MIVC_CUDA_ARCHS is \"{bad}\": ")), "{error}");
        assert!(error.contains("is no architecture"), "{error}");
    }
    let too_old = names(&[("MIVC_CUDA_ARCHS", "75,80")]).unwrap_err();
    assert_eq!(too_old, "MIVC_CUDA_ARCHS is \"75,80\": architecture 75 is too old, the kernels need 80 or later");
    let list = names(&[("CUDA_COMPUTE_CAP", "80,90")]).unwrap_err();
    assert!(list.starts_with("CUDA_COMPUTE_CAP is \"80,90\": "), "{list}");
}

#[test]
fn machine_code_is_for_each_architecture_and_ptx_for_the_lowest() {
    let architectures = requested(environment(&[("MIVC_CUDA_ARCHS", "90a,80")])).unwrap();
    assert_eq!(
        architectures::arguments(&architectures),
        [
            "-gencode=arch=compute_80,code=sm_80",
            "-gencode=arch=compute_90a,code=sm_90a",
            "-gencode=arch=compute_80,code=compute_80"
        ]
    );
}

#[test]
fn the_release_is_read_from_what_nvcc_prints() {
    let printed = "Copyright (c) 2005-2025\nCuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0";
    assert_eq!(parse_release(printed), Some((13, 0)));
    assert_eq!(parse_release("gcc (Debian 12.2.0) 12.2.0"), None);
    assert!(parse_release("release, release 12.8, V12.8.93") > parse_release("tools, release 9.10, V9.10.1"));
}

#[test]
fn compilers_are_looked_for_in_the_order_of_the_script() {
    let search_path = std::env::join_paths(["/first", "", "/second"]).unwrap();
    let search_path = search_path.to_str().unwrap();
    let variables = [("PATH", search_path), ("CUDA_PATH", "/path"), ("CUDA_HOME", "/home"), ("NVCC", "my-nvcc")];
    let expected = [
        "my-nvcc",
        "/home/bin/nvcc",
        "/path/bin/nvcc",
        "/first/nvcc",
        "/second/nvcc",
        "/usr/local/cuda/bin/nvcc",
        "/root/.cuda/nvidia/cu13/bin/nvcc",
    ];
    assert_eq!(candidates(environment(&variables), Path::new("/root")), expected.map(PathBuf::from));
}

#[test]
fn the_host_compiler_is_one_command() {
    let host = |variables| host_compiler(environment(variables));
    assert_eq!(host(&[]), None);
    assert_eq!(host(&[("CXX", "g++-13")]), Some("g++-13".into()));
    assert_eq!(host(&[("CXX", "ccache g++")]), None);
    assert_eq!(host(&[("CXX", "g++-13"), ("NVCC_CCBIN", "/my tools/g++")]), Some("/my tools/g++".into()));
}

#[test]
fn without_a_compiler_the_message_says_how_to_get_one() {
    let message = missing(&[("/usr/bin/nvcc".into(), (12, 0))]);
    for part in
        ["12.8 or later", "CUDA toolkit", "NVCC", "CUDA_HOME", "scripts/cuda-toolchain.sh", "/usr/bin/nvcc (12.0)"]
    {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn prerequisites_are_those_of_the_rule() {
    let rule = "a.fatbin : my\\ kernels/a.cu \\\n    /usr/include/features.h \\\n    my\\ kernels/abi.h\n";
    let expected = ["my kernels/a.cu", "/usr/include/features.h", "my kernels/abi.h"];
    assert_eq!(parse_rule(rule).unwrap(), expected.map(PathBuf::from));
    assert_eq!(parse_rule(""), None);
}

#[test]
fn the_fingerprint_is_of_what_was_done_and_of_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.cu", "abi.h"].map(|name| folder.path().join(name));
    for file in &files {
        fs::write(file, "1").unwrap();
    }
    let before = fingerprint("-O3", &files).unwrap();
    fs::write(&files[1], "1").unwrap();
    assert_eq!(fingerprint("-O3", &files).unwrap(), before, "saved, but the same");
    assert_ne!(fingerprint("-O2", &files).unwrap(), before);
    assert_ne!(fingerprint("-O3", &files[..1]).unwrap(), before);
    fs::write(&files[1], "2").unwrap();
    assert_ne!(fingerprint("-O3", &files).unwrap(), before);
    fs::remove_file(&files[1]).unwrap();
    assert!(fingerprint("-O3", &files).is_err());
}

#[test]
fn kernels_are_the_entries_of_the_ptx() {
    let ptx = ".func helper(\n)\n.visible .entry mivc_a(\n\t.param .u64 p\n)\n.visible .entry mivc_b()\n";
    assert_eq!(images::entries(ptx), ["mivc_a", "mivc_b"]);
}
