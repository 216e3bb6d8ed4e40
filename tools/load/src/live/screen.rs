//! The screen: a pure function of the state.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Sparkline, Table};

use super::progress::{Progress, micros};
use crate::chart::units;
use crate::record::LoopMode;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const WORTH_A_LOOK: Style = Style::new().fg(Color::Yellow);

/// Draws everything; what does not fit is left out from below.
pub(super) fn draw(frame: &mut Frame<'_>, progress: &Progress) {
    let operations = progress.operations.len().clamp(1, 12) as u16;
    let errors = progress.failed.len().clamp(1, 6) as u16;
    let events = progress.events.len().clamp(1, 6) as u16;
    let [head, phase, table, charts, below, state, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(operations + 3),
        Constraint::Fill(1),
        Constraint::Length(errors.max(events) + 2),
        Constraint::Length(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title(progress), head);
    draw_phase(frame, progress, phase);
    draw_operations(frame, progress, table);
    draw_charts(frame, progress, charts);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(below);
    frame.render_widget(failures(progress, errors.max(events)), left);
    frame.render_widget(happened(progress, errors.max(events)), right);
    frame.render_widget(processes(progress), state);
    frame.render_widget(Line::styled("q or Ctrl-C: end the run in order", DIM), keys);
}

fn title(progress: &Progress) -> Line<'_> {
    let outline = &progress.outline;
    let mode = match outline.mode {
        LoopMode::Open => Span::raw("open loop"),
        LoopMode::Closed { window } => {
            Span::styled(format!("CLOSED LOOP, {window} in flight"), WORTH_A_LOOK)
        }
    };
    let workers = match outline.workers {
        0 | 1 => String::new(),
        workers => format!(", {workers} workers"),
    };
    Line::from(vec![
        Span::styled(outline.name.as_str(), BOLD),
        Span::raw(format!(
            "  {}  {} users{workers}  {} online  ",
            outline.target,
            units::grouped(outline.users),
            units::grouped(progress.online),
        )),
        mode,
    ])
}

fn draw_phase(frame: &mut Frame<'_>, progress: &Progress, area: Rect) {
    let length = progress.outline.length().as_secs_f64();
    let over = progress.seconds as f64;
    let label = format!(
        "{} ({} of {})  {} of {}",
        progress.phase_name(),
        progress.phase + 1,
        progress.outline.phases.len().max(1),
        units::clock(over),
        units::clock(length)
    );
    let ratio = if length > 0.0 { (over / length).clamp(0.0, 1.0) } else { 1.0 };
    let style = Style::new().fg(Color::Cyan).bg(Color::DarkGray);
    frame.render_widget(Gauge::default().gauge_style(style).ratio(ratio).label(label), area);
}

fn draw_operations(frame: &mut Frame<'_>, progress: &Progress, area: Rect) {
    let us = |time: Duration| units::microseconds(micros(time) as f64);
    let rows = progress.operations.iter().map(|(operation, line)| {
        let quantile = |share: f64| match line.response.is_empty() {
            true => "–".to_owned(),
            false => us(line.response.quantile(share)),
        };
        let failed = if line.failed == 0 { DIM } else { BAD };
        Row::new([
            Cell::from(operation.name()),
            Cell::from(units::grouped(line.planned_last)),
            Cell::from(units::grouped(line.done_last)),
            Cell::from(units::count(line.done as f64)),
            Cell::from(quantile(0.5)),
            Cell::from(quantile(0.99)).style(BOLD),
            Cell::from(quantile(0.999)),
            Cell::from(quantile(1.0)),
            Cell::from(match line.service.is_empty() {
                true => "–".to_owned(),
                false => us(line.service.quantile(0.99)),
            }),
            Cell::from(units::grouped(line.failed)).style(failed),
        ])
    });
    let titles = [
        "operation",
        "planned/s",
        "done/s",
        "done",
        "p50",
        "p99",
        "p99.9",
        "max",
        "service p99",
        "failed",
    ];
    let widths = [17, 9, 9, 9, 9, 9, 9, 9, 11, 8].map(Constraint::Length);
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(DIM))
        .block(Block::bordered().title("response times of this phase"));
    frame.render_widget(table, area);
}

fn draw_charts(frame: &mut Frame<'_>, progress: &Progress, area: Rect) {
    let [upper, lower] =
        Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let width = usize::from(area.width.saturating_sub(2));
    let points = progress.points.iter().skip(progress.points.len().saturating_sub(width));
    let done: Vec<u64> = points.clone().map(|point| point.done).collect();
    let p99: Vec<u64> = points.map(|point| point.p99_us).collect();
    let highest = |values: &[u64]| values.iter().copied().max().unwrap_or_default();
    let throughput = format!("done per second, at most {}", units::grouped(highest(&done)));
    let busiest = progress.busiest.map_or("response", |operation| operation.name());
    let latency =
        format!("p99 of {busiest}, at most {}", units::microseconds(highest(&p99) as f64));
    let chart = |values: Vec<u64>, title: String, color: Color| {
        Sparkline::default()
            .data(values)
            .style(Style::new().fg(color))
            .block(Block::bordered().title(title))
    };
    frame.render_widget(chart(done, throughput, Color::Cyan), upper);
    frame.render_widget(chart(p99, latency, Color::Magenta), lower);
}

fn failures(progress: &Progress, rows: u16) -> Paragraph<'_> {
    let mut worst: Vec<_> = progress.failed.iter().collect();
    worst.sort_by_key(|(condition, count)| (std::cmp::Reverse(**count), condition.as_str()));
    let mut lines: Vec<Line<'_>> = worst
        .iter()
        .take(usize::from(rows))
        .map(|(condition, count)| {
            let count = Span::styled(format!("{:>9}  ", units::grouped(**count)), BAD);
            Line::from(vec![count, Span::raw(condition.as_str())])
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::styled("none", GOOD));
    }
    let title = format!("errors: {}", units::grouped(progress.errors()));
    Paragraph::new(lines).block(Block::bordered().title(title))
}

fn happened(progress: &Progress, rows: u16) -> Paragraph<'_> {
    let skipped = progress.events.len().saturating_sub(usize::from(rows));
    let lines: Vec<Line<'_>> = progress
        .events
        .iter()
        .skip(skipped)
        .map(|(second, event)| Line::raw(format!("{second:>6} s  {event}")))
        .collect();
    Paragraph::new(lines).block(Block::bordered().title("faults and notes"))
}

/// The server's process, the tool's own, and whether the run may be believed so far.
fn processes(progress: &Progress) -> Paragraph<'_> {
    let percent = |cpu: Duration| cpu.as_secs_f64() * 100.0;
    let server = match progress.server {
        Some(server) => format!(
            "server  {:.0} % of a core, {}",
            percent(server.cpu),
            units::bytes(server.memory as f64)
        ),
        None => "server  not watched (--server-pid)".to_owned(),
    };
    let lag = progress.points.back().map_or(0, |point| point.lag_p99_us);
    let own = format!(
        "tool    {:.0} % of a core, p99 of lag {}, {} late, {} dropped",
        percent(progress.own_cpu_last),
        units::microseconds(lag as f64),
        units::grouped(progress.late),
        units::grouped(progress.dropped)
    );
    let verdict = if let Some(reason) = progress.invalid.first() {
        let more = progress.invalid.len() - 1;
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        Line::styled(format!("INVALID: {reason}{more}"), BAD)
    } else if progress.unreadable > 0 {
        Line::styled("INVALID: a histogram that cannot be read", BAD)
    } else if progress.is_behind() {
        Line::styled("valid so far; the tool is late now", WORTH_A_LOOK)
    } else {
        Line::styled("valid so far", GOOD)
    };
    Paragraph::new(vec![Line::raw(server), Line::raw(own), verdict])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::progress::Update;
    use super::super::progress::tests::{outline, second};
    use super::*;
    use crate::record::Fault;

    fn screen(progress: &Progress, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, progress)).unwrap();
        let text = terminal.backend().to_string();
        text.replace('\u{202f}', " ")
    }

    fn running() -> Progress {
        let mut progress = Progress::new(outline());
        progress.take(second(0, 0, 10, 300));
        progress.take(second(2, 1, 1000, 500));
        progress.take(second(3, 1, 3000, 1700));
        progress
    }

    #[test]
    fn the_screen_shows_rates_percentiles_errors_and_both_processes() {
        let screen = screen(&running(), 110, 32);
        for part in [
            "chat  127.0.0.1:5222  200 users, 2 workers  200 online  open loop",
            "talk (2 of 2)  4 s of 10 s",
            "message           3 001     3 000     4 000",
            "1.7 ms",
            "done per second, at most 3 000",
            "p99 of message, at most 1.7 ms",
            "3  service-unavailable",
            "server  12 % of a core, 34 MiB",
            "tool    9 % of a core, p99 of lag 40 µs, 9 late, 0 dropped",
            "valid so far",
            "q or Ctrl-C",
        ] {
            assert!(screen.contains(part), "{part}\n{screen}");
        }
        assert!(screen.contains('█'), "no charts:\n{screen}");
    }

    #[test]
    fn an_invalid_run_and_a_fault_are_seen() {
        let mut progress = running();
        progress.take(Update::Fault(Fault {
            at: Duration::from_secs(3),
            name: "stall".to_owned(),
            took: Duration::from_millis(500),
            result: "exit 0".to_owned(),
        }));
        progress.take(Update::Invalid("worker 2 is gone".to_owned()));
        let screen = screen(&progress, 100, 30);
        assert!(screen.contains("3 s  fault stall: exit 0"), "{screen}");
        assert!(screen.contains("INVALID: worker 2 is gone"), "{screen}");
    }

    #[test]
    fn any_size_of_terminal_and_a_run_without_anything_can_be_drawn() {
        let empty = Progress::new(super::super::Outline { phases: Vec::new(), ..outline() });
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            screen(&empty, width, height);
            screen(&running(), width, height);
        }
        assert!(screen(&running(), 80, 24).contains("valid so far"));
    }
}
