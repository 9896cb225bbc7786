//! `bench-http`: what an answer of the edge costs, against nginx on the same host, in one interleaved run.
//!
//! The guest is a process guest: real rings and notifications, no hypervisor. Its server is a `tower` service in this
//! process; nginx has one that says the same, over loopback. Costs are CPU time of the process that answers: what else
//! the machine does falls on neither.

mod load;
mod nginx;
mod origin;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use vamos_bench::platform::{Platform, Transitions, VM};
use vamos_bench::process::Pid;
use vamos_bench::report::{Report, Target};
use vamos_bench::statistics::Estimate;

use crate::load::{Load, Run};
use crate::nginx::Nginx;
use crate::origin::{Guest, HOST, SIZES};

/// Measures the edge against nginx.
#[derive(Debug, Parser)]
#[command(name = "bench-http", version)]
struct Arguments {
    /// The vamosd to measure, with vamos-cell, vamos-edge and vamosctl beside it [default: beside this program]
    #[arg(long)]
    vamosd: Option<PathBuf>,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Rounds to run
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Instead: so many requests to the edge, kept, not kept and over TLS, and what its memory grew by
    #[arg(long, value_name = "REQUESTS")]
    soak: Option<u64>,
}

/// Clients at once.
const CLIENTS: usize = 16;

/// How long each has in a round.
const SLICE: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&arguments))
}

/// One thing that is measured: who answers, what, and over what.
struct Variant {
    name: String,
    process: Pid,
    load: Load,
    /// CPU time of an answer, microseconds, a round each.
    costs: Vec<f64>,
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let beside = std::env::current_exe()?.with_file_name("vamosd");
    let vamosd = arguments.vamosd.clone().unwrap_or(beside);
    let directory = tempfile::tempdir().context("make a temporary directory")?;
    open_to_all(directory.path())?;
    let keys = Keys::make(directory.path())?;
    let platform = Platform::configured(&vamosd, &directory.path().join("platform"), &configuration(&keys))?;
    let guest = Guest::publish(&platform.socket()).await.context(platform.log())?;
    let edge = edge_of(&platform).await?;
    if let Some(requests) = arguments.soak {
        let report = soak(&edge, &keys, requests).await.with_context(|| platform.log())?;
        println!("{report}");
        if let Some(path) = &arguments.json {
            report.write(path)?;
        }
        drop(guest);
        platform.stop().await;
        return Ok(if report.count_missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let nginx = Nginx::start(directory.path(), guest.server(), &keys)?;
    let mut variants = Vec::new();
    for (path, bytes) in SIZES {
        for tls in [false, true] {
            for (who, process, address) in
                [("edge", edge.process, edge.listener(tls)), ("nginx", nginx.worker()?, nginx.listener(tls))]
            {
                let load = Load::connect(address, path, *bytes, tls.then_some(&keys.certificate), CLIENTS);
                let load = load.await.with_context(|| format!("connect to {who}; {}", platform.log()))?;
                let secure = if tls { "_tls" } else { "" };
                variants.push(Variant {
                    name: format!("{who}{path}{secure}").replace('/', "_"),
                    process,
                    load,
                    costs: Vec::new(),
                });
            }
        }
    }
    // Everything is kept from here on.
    for variant in &mut variants {
        variant.load.run(SLICE).await?;
    }
    let before = platform.transitions()?;
    for round in 0..arguments.rounds {
        let backwards = round % 2 == 1;
        let order: Vec<usize> =
            if backwards { (0..variants.len()).rev().collect() } else { (0..variants.len()).collect() };
        for at in order {
            let variant = &mut variants[at];
            let begun = variant.process.cpu()?;
            let Run { answers, .. } = variant.load.run(SLICE).await?;
            let used = variant.process.cpu()?.saturating_sub(begun);
            variant.costs.push(used.as_secs_f64() * 1e6 / answers as f64);
        }
    }
    let hits = platform.transitions()?;
    let mut report = Report::default();
    summarise(&variants, &mut report);
    let transitions = (hits.kicks + hits.calls - before.kicks - before.calls) as f64;
    report.add(
        "hit_transitions",
        Estimate::of(&[transitions]),
        "transitions",
        Some(Target::CountAtMost(0.0)),
    );
    pass_through(&platform, edge.listener(false), &mut report).await?;
    drop(variants);
    println!("{report}");
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    let missed = report.count_missed();
    drop((nginx, guest));
    platform.stop().await;
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Memory of the edge after a tenth of the requests, and after all of them.
async fn soak(edge: &EdgeAt, keys: &Keys, requests: u64) -> anyhow::Result<Report> {
    let mut loads = Vec::new();
    for (path, tls) in [("/1k", false), ("/1k", true), ("/uncached", false)] {
        let trusted = tls.then_some(&keys.certificate);
        loads.push(Load::connect(edge.listener(tls), path, SIZES[0].1, trusted, CLIENTS).await?);
    }
    let (mut answers, mut tenth) = (0, None);
    while answers < requests {
        for load in &mut loads {
            answers += load.run(SLICE).await?.answers;
        }
        if tenth.is_none() && answers >= requests / 10 {
            tenth = Some(edge.process.pss()?);
        }
    }
    let (tenth, end) = (tenth.context("no requests")? as f64, edge.process.pss()? as f64);
    let mut report = Report::default();
    report.add("soak_requests", Estimate::of(&[answers as f64]), "requests", None);
    report.add("soak_memory_after_a_tenth", Estimate::of(&[tenth / 1e6]), "MB", None);
    report.add("soak_memory_at_the_end", Estimate::of(&[end / 1e6]), "MB", None);
    report.add(
        "soak_growth",
        Estimate::of(&[(end - tenth) / 1e6]),
        "MB",
        Some(Target::CountAtMost(GROWTH_MAX)),
    );
    Ok(report)
}

/// Most that the edge's memory may grow by while it answers the same again and again, MB.
const GROWTH_MAX: f64 = 4.0;

/// Answers a core gives, the edge's over nginx's, is the cost of nginx's over the edge's.
fn summarise(variants: &[Variant], report: &mut Report) {
    let costs =
        |name: &str| variants.iter().find(|variant| variant.name == name).map_or(&[][..], |v| &v.costs);
    let cases: [(&'static str, &str, &'static str, &'static str); 4] = [
        ("cached_hits_vs_nginx", "_1k", "edge_cpu_1k", "nginx_cpu_1k"),
        ("cached_hits_vs_nginx_100k", "_100k", "edge_cpu_100k", "nginx_cpu_100k"),
        ("cached_hits_vs_nginx_tls", "_1k_tls", "edge_cpu_1k_tls", "nginx_cpu_1k_tls"),
        ("cached_hits_vs_nginx_100k_tls", "_100k_tls", "edge_cpu_100k_tls", "nginx_cpu_100k_tls"),
    ];
    for (ratio, which, edge_name, nginx_name) in cases {
        let (edge, nginx) = (costs(&format!("edge{which}")), costs(&format!("nginx{which}")));
        report.add(ratio, Estimate::of_ratio(nginx, edge), "ratio", Some(Target::AtLeast(1.0)));
        report.add(edge_name, Estimate::of(edge), "us", None);
        report.add(nginx_name, Estimate::of(nginx), "us", None);
    }
}

/// What a request that is not kept costs, alone and among many.
async fn pass_through(platform: &Platform, edge: SocketAddr, report: &mut Report) -> anyhow::Result<()> {
    for (clients, name, most) in
        [(1, "transitions_per_request_1", 2.0), (64, "transitions_per_request_64", 0.3)]
    {
        let mut load = Load::connect(edge, "/uncached", SIZES[0].1, None, clients).await?;
        load.run(SLICE).await?;
        let mut samples = Vec::new();
        for _ in 0..11 {
            let before = platform.transitions()?;
            let Run { answers, .. } = load.run(SLICE * 3).await?;
            let Transitions { kicks, calls } = platform.transitions()?;
            samples.push((kicks + calls - before.kicks - before.calls) as f64 / answers as f64);
        }
        // Among many it depends on who is scheduled when: reported, not gated.
        let target = if clients == 1 { Target::CountAtMost(most) } else { Target::AtMost(most) };
        report.add(name, Estimate::of(&samples), "transitions", Some(target));
    }
    Ok(())
}

/// A certificate for both.
pub struct Keys {
    /// Its file.
    pub certificate_file: PathBuf,
    /// Its key's.
    pub key_file: PathBuf,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
}

impl Keys {
    fn make(directory: &Path) -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
        let (certificate_file, key_file) = (directory.join("certificate.pem"), directory.join("key.pem"));
        std::fs::write(&certificate_file, certificate.pem())?;
        std::fs::write(&key_file, key.serialize_pem())?;
        Ok(Self { certificate_file, key_file, certificate: certificate.der().to_vec() })
    }
}

fn configuration(keys: &Keys) -> String {
    format!(
        "[edge]\nlisten = \"127.0.0.1:0\"\nlisten_tls = \"127.0.0.1:0\"\n\n[[certificate]]\ncertificate = {:?}\nkey = {:?}\n\n\
         [[service]]\nname = \"site\"\nkind = \"http\"\n\n[[vm]]\nname = {VM:?}\n\n[[binding]]\nvm = {VM:?}\nservice = \"site\"\n\n\
         [[route]]\nto = \"{VM}/site\"\ncache_bytes = 67108864\n",
        keys.certificate_file, keys.key_file
    )
}

/// The edge's process and where it listens.
struct EdgeAt {
    process: Pid,
    listeners: Vec<SocketAddr>,
}

impl EdgeAt {
    fn listener(&self, tls: bool) -> SocketAddr {
        self.listeners[usize::from(tls)]
    }
}

/// The edge, once the guest's streams are open.
async fn edge_of(platform: &Platform) -> anyhow::Result<EdgeAt> {
    for _ in 0..500 {
        let status = platform.ctl(&["edge"])?;
        let streams = status["targets"][0]["streams"].as_u64().unwrap_or(0);
        if streams > 0 {
            let listeners = status["listeners"].as_array().context("no listeners")?;
            let listeners = listeners.iter().filter_map(|one| one.as_str()?.parse().ok()).collect();
            let pid = status["pid"].as_u64().context("no edge")?;
            return Ok(EdgeAt { process: Pid(u32::try_from(pid)?), listeners });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("the guest opened no stream: {}", platform.log())
}

/// Cells, the edge and nginx run as other users and must reach what is theirs below `directory`.
fn open_to_all(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory, permissions).context("open the temporary directory")
}
