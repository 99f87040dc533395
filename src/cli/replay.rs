//! `bridgehead replay FILE`: what the daemon would have answered to captured packets.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;

use super::explain::load;
use super::{Failure, Files, print, print_json};
use crate::explain::{Replayed, What, replay};

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tcpdump -i eno2 -s 0 -w boot.pcap 'udp port 67 or 68 or 69 or 4011'\n  bridgehead replay boot.pcap"
)]
pub(super) struct Arguments {
    /// The capture, pcap or pcapng
    capture: PathBuf,
    /// The daemon's address in its network [default: `server` of the network, else this machine's]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Ipv4Addr>,
    #[command(flatten)]
    files: Files,
    /// Print JSON, a line for each packet
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Count {
    requests: u64,
    unanswered: u64,
    refused: u64,
}

impl Count {
    fn add(&mut self, what: &What) {
        self.requests += u64::from(what.is_request());
        self.unanswered += u64::from(what.is_unanswered());
        self.refused += u64::from(matches!(what, What::Tftp { sends: None, .. }));
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let snapshot = load(&arguments.files)?;
    let mut count = Count::default();
    let mut printed = Ok(());
    let replayed = replay(snapshot, &arguments.capture, arguments.server, |replayed| {
        count.add(&replayed.what);
        if printed.is_ok() {
            printed = match arguments.json {
                true => print_json(&replayed),
                false => print(&text(&replayed)),
            };
        }
    });
    let end = replayed.map_err(|error| Failure::of(&error))?;
    printed?;
    if let Some(trouble) = end.trouble {
        let (file, packets) = (arguments.capture.display(), end.packets);
        return Err(Failure::said(format!(
            "{file} can't be read beyond packet {packets}: {trouble}"
        )));
    }
    if arguments.json {
        return Ok(());
    }
    let Count {
        requests,
        unanswered,
        refused,
    } = count;
    print(&format!(
        "\n{} packets, {requests} of them requests for the daemon: {unanswered} without an answer, {refused} refused\n",
        end.packets
    ))
}

fn text(replayed: &Replayed) -> String {
    let Replayed {
        packet,
        at,
        from,
        to,
        machine,
        ..
    } = replayed;
    let at = at.strftime("%H:%M:%S%.3f");
    let (asks, said) = match &replayed.what {
        What::Dhcp(step) => (step.asks.clone(), step.event.clone()),
        What::Tftp {
            asks,
            sends,
            because,
        } => {
            let said = match sends {
                Some(bytes) => format!("sends its {bytes} bytes"),
                None => format!("refused: {because}"),
            };
            (format!("TFTP, {asks:?}"), said)
        }
        What::Offered {
            server,
            address,
            boots,
        } => {
            let server = server.map_or_else(|| from.ip().to_string(), |server| server.to_string());
            let boots = if *boots { " with a boot file" } else { "" };
            return format!(
                "#{packet} {at}  {machine}  was offered {address}{boots} by {server}\n"
            );
        }
        What::Malformed { because } => (
            format!("from {from} to {to}"),
            format!("no answer: {because}"),
        ),
    };
    format!("#{packet} {at}  {machine}  {asks}\n    {said}\n")
}
