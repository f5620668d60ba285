//! strata composes an operating system in layers.
//!
//! Data flows one way; each stage's output is a plain value that can be written down and digested:
//!
//! ```text
//! manifests/*.toml ─ manifest ─▶ plan::Plan            what each layer should contain, with origins
//!                                  │ resolve (repo metadata + parent's packages, libsolv)
//!                                  ▼
//!                    lock::Lockfile                     exact packages of a layer, reviewed in git
//!                                  │ fetch (digest + signature)
//!                                  ▼
//!                    store::Store                       rpms, extracted layers, OCI blobs and images
//!                                  │ install (order, payload, scriptlets, triggers, rpmdb)
//!                                  │ configure (files, users, units, kargs, scripts)
//!                                  │ stamp (version, os-release)
//!                                  ▼
//!                    image                              rootfs delta ─▶ chunks ─▶ OCI image
//!                                  └─▶ diff             package sets of two images or locks
//! ```
//!
//! Only [`cli`] prints and chooses exit codes. Parsing, planning, solving, packing and diffing touch no
//! clock, network or environment: those arrive as arguments.

pub mod accounts;
pub mod actor;
pub mod build;
pub mod cli;
pub mod configure;
pub mod diff;
pub mod digest;
pub mod error;
pub mod exchange;
pub mod fetch;
pub mod fsck;
pub mod gc;
pub mod image;
pub mod install;
pub mod ledger;
pub mod lint;
pub mod lock;
pub mod manifest;
pub mod origins;
pub mod package;
pub mod pkglist;
pub mod plan;
pub mod progress;
pub mod provenance;
pub mod replace;
pub mod repo;
pub mod resolve;
pub mod rootfs;
pub mod rpmdb;
pub mod sandbox;
pub mod sbom;
pub mod selinux;
pub mod stamp;
pub mod store;
pub mod sysusers;
pub mod tmpfiles;
pub mod tree;
pub mod verify;
